"""The page: one module a tab. It asks transfer/ and analysis/, shows what they say, and does no arithmetic."""
