"""Phase data_import: any export becomes a table of texts, profiled and judged by a crew."""
