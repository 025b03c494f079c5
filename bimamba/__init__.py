"""The command `bimamba`: the one package that sees blocks, modules and data together."""
