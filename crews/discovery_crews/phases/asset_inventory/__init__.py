"""Phase asset_inventory: mapped columns become typed, classified, de-duplicated assets."""
