"""What goes with the images: bills of materials, and the digests in a release's chart."""
