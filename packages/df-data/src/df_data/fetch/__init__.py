"""From a dataset's lists to clips on disk: what there is to fetch, downloading, cutting, and a record of each clip."""
