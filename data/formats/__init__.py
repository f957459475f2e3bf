"""The layouts of data sets that people bring; one module each, all read into the rows of `data.rows`."""
