"""The methods of the add-on, each written once for both solo-learns."""
