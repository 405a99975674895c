# SPDX-License-Identifier: LGPL-2.1-or-later
"""Parts of the laboratory; tests import `lab`, which says what is where."""
