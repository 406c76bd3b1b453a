"""The methods that the add-on brings, each written once for both solo-learns."""
