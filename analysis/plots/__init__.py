"""plotly figures out of tables: the only room that draws."""
