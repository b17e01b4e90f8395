"""What a person calls: the command line, installing and looking after."""
