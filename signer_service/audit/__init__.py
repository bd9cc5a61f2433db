"""Re-check of the ceremony log by somebody who has the operator's public key and nothing else.

``facts``    what an audit finds: epochs, attempts, remarks, and the first thing that does not hold
``recheck``  one commit against what the log has of it: the checks that the fold has no need of
``chain``    the running hash at every offset, and whether each seat has signed the same
``told``     in words: what a ceremony was for, who did not deal, and why
``auditor``  folds the log (``protocol.fold``, the one judge) and keeps what there is to tell
``log_file`` a log saved to a file, so that it can be checked elsewhere and later
``source``   the log as it stands on a broker
``report``   a table for people, JSON for machines
``command``  ``python -m signer_service audit``
"""
