"""The parts of a curriculum, one file each: frozen types that refuse what is wrong."""
