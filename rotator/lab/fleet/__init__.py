"""A fleet as it is configured, through a month of faults: the real engine in virtual time, on all cores.

`scenario` says who lives and what breaks, `month` is one world of it, `surroundings` what stands around the engine
there, `causes` names what a gap comes from, and `worlds` shares a fleet among processes and adds the worlds up.
"""
