"""Where networks come from: names, modules, files, folders."""
