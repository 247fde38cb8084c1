"""The user API (people and their tools) and the execution API (crew pods), two applications."""
