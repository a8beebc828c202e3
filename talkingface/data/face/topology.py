"""Index tables of MediaPipe's 478-point face mesh. A test compares them with the installed package.

"Left" and "right" are those of the picture unless said otherwise.
"""

from __future__ import annotations

N_POINTS = 478
N_MESH = 468  # the rest are ten iris points

# Lip contours in drawing order, from one mouth corner round to the other and back.
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40,
              185)  # fmt: skip
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80,
              191)  # fmt: skip
LIPS = LIPS_OUTER + LIPS_INNER
MOUTH_CORNERS = (61, 291)
INNER_LIP_TOP, INNER_LIP_BOTTOM = 13, 14

EYE_CORNERS_LEFT = (33, 133)
EYE_CORNERS_RIGHT = (362, 263)

FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400,
             377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
             109)  # fmt: skip
FOREHEAD, CHIN = 10, 152

# Points that hardly move when a person speaks: eye corners, nose bridge and nose side.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327)
