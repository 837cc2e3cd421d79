"""`tl-keras advise`: candidates named by the user, appraised, told as a table and a page."""
