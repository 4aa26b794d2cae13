"""Checks of an answer that a function can decide: the verifiable instructions of IFEval, and a few more.

Source: Zhou et al., "Instruction-Following Evaluation for Large Language Models", 2023 (arXiv 2311.07911), with the checkers in
google-research/instruction_following_eval (Apache-2.0). Written anew; what differs is in each function's `Deviation`.
"""

from perdure.evaluate.checks.kinds import KINDS, follows, refuse_wrong

__all__ = ["KINDS", "follows", "refuse_wrong"]
