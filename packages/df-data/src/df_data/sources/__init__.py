"""Where videos come from: folders and their names, persons, records of fetched clips, public catalogues."""
