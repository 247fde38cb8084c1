"""The execution API: crew pods' only door to the state."""
