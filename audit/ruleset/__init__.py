"""The rule language: JSON files that say what must hold, loaded, checked, compiled and explained.

`language` holds the words, `parse` reads a rule, `policy` the values of the site, `load` the files, `compiled` turns a
set of rules into one function, `explain` says in words why a connection was found, `cases` runs the tests inside rules.
"""
