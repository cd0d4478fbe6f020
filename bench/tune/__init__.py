"""Search for settings (kind: tune): spaces, searchers, what is tried next, and what was chosen.

Every tried setting is an ordinary cell with a record. What a search does next is a function of the suite and of the records
that there are, so running again completes it or does nothing, and no order of completion can change a choice.
"""
