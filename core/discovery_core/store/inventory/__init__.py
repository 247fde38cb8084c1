"""The inventory: records of accepted attempts, and the assets that they are about.

Here: records, whose records are one asset, conflicts and decisions about them. Not here: how crews
find records in files.
"""
