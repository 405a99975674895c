# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boots Debian's own kernel in an emulated machine over the host's files (see ../README.md)."""
