"""What became of a campaign, told to people: the facts put together, and drawn as text, as a mail and as a page.

All of it is pure: it is given the answer of ``campaign.report``, and gives words.
"""
