"""Phase data_cleansing: a crew chooses rules from a closed list, code applies them to all rows."""
