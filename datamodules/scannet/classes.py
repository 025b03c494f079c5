"""The 200 classes of ScanNet200 in official order, and how labels of files become places in it.

Source: ScanNet/ScanNet, BenchmarkScripts/ScanNet200. A row: id in the label table, name, group by
frequency, whether a validation scene has one, id among the 40 of NYU, colour. Wall and floor are
stuff: they have no instances. The official order has chair at 1 and floor at 2; OneFormer3D and its
heirs swap the two, so that stuff comes first: `swap_stuff_first` turns one order into the other.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Group = Literal["head", "common", "tail"]
Ids = npt.NDArray[np.int64]

_TABLE = """\
1|wall|head|val|1|174,199,232
2|chair|head|val|5|188,189,34
3|floor|head|val|2|152,223,138
4|table|head|val|7|255,152,150
5|door|head|val|8|214,39,40
6|couch|head|val|6|91,135,229
7|cabinet|head|val|3|31,119,180
8|shelf|head|val|15|229,91,104
9|desk|head|val|14|247,182,210
10|office chair|head|val|5|91,229,110
11|bed|head|val|4|255,187,120
13|pillow|head|val|18|141,91,229
14|sink|head|val|34|112,128,144
15|picture|head|val|11|196,156,148
16|window|head|val|9|197,176,213
17|toilet|head|val|33|44,160,44
18|bookshelf|head|val|10|148,103,189
19|monitor|head|val|40|229,91,223
21|curtain|head|val|16|219,219,141
22|book|head|val|23|192,229,91
23|armchair|head|val|5|88,218,137
24|coffee table|head|val|7|58,98,137
26|box|head|val|29|177,82,239
27|refrigerator|head|val|24|255,127,14
28|lamp|head|val|35|237,204,37
29|kitchen cabinet|head|val|3|41,206,32
31|towel|head|val|27|62,143,148
32|clothes|head|val|21|34,14,130
33|tv|head|val|25|143,45,115
34|nightstand|head|val|32|137,63,14
35|counter|head|val|12|23,190,207
36|dresser|head|val|17|16,212,139
38|stool|head|val|40|90,119,201
39|cushion|common|val|18|125,30,141
40|plant|head|val|40|150,53,56
41|ceiling|head|val|22|186,197,62
42|bathtub|head|val|36|227,119,194
44|end table|common|val|7|38,100,128
45|dining table|common|val|7|120,31,243
46|keyboard|common|val|40|154,59,103
47|bag|common|val|37|169,137,78
48|backpack|head|val|40|143,245,111
49|toilet paper|common|val|40|37,230,205
50|printer|common|val|40|14,16,155
51|tv stand|head|val|39|196,51,182
52|whiteboard|head|val|30|237,80,38
54|blanket|common|val|40|138,175,62
55|shower curtain|head|val|28|158,218,229
56|trash can|head|val|39|38,96,167
57|closet|head|val|39|190,77,246
58|stairs|head|val|38|208,49,84
59|microwave|common|val|40|208,193,72
62|stove|head|val|38|55,220,57
63|shoe|common|val|40|10,125,140
64|computer tower|common|val|40|76,38,202
65|bottle|common|val|40|191,28,135
66|bin|common|val|40|211,120,42
67|ottoman|common|val|39|118,174,76
68|bench|common|val|39|17,242,171
69|board|head|val|38|20,65,247
70|washing machine|head|val|39|208,61,222
71|mirror|head|val|19|162,62,60
72|copier|head|val|40|210,235,62
73|basket|common|val|40|45,152,72
74|sofa chair|head|val|5|35,107,149
75|file cabinet|head|val|3|160,89,237
76|fan|common|val|40|227,56,125
77|laptop|common|val|40|169,143,81
78|shower|head|val|38|42,143,20
79|paper|tail|val|26|25,160,151
80|person|common|val|31|82,75,227
82|paper towel dispenser|common|val|40|253,59,222
84|oven|common|val|38|240,130,89
86|blinds|head|val|13|123,172,47
87|rack|common|val|39|71,194,133
88|plate|tail|val|40|24,94,205
89|blackboard|head|val|38|134,16,179
90|piano|common|val|39|159,32,52
93|suitcase|common|val|40|213,208,88
95|rail|common|val|38|64,158,70
96|radiator|head|val|39|18,163,194
97|recycling bin|head|val|39|65,29,153
98|container|common|val|40|177,10,109
99|wardrobe|head|val|39|152,83,7
100|soap dispenser|tail|val|40|83,175,30
101|telephone|common|val|40|18,199,153
102|bucket|tail|val|40|61,81,208
103|clock|tail|val|40|213,85,216
104|stand|common|val|39|170,53,42
105|light|common|val|38|161,192,38
106|laundry basket|common|val|40|23,241,91
107|pipe|common|val|38|12,103,170
110|clothes dryer|head|val|39|151,41,245
112|guitar|tail|val|40|133,51,80
115|toilet paper holder|tail|val|40|184,162,91
116|seat|common|val|39|50,138,38
118|speaker|tail|val|40|31,237,236
120|column|common|val|38|39,19,208
121|bicycle|common|-|40|223,27,180
122|ladder|common|val|39|254,141,85
125|bathroom stall|head|val|38|97,144,39
128|shower wall|head|val|1|106,231,176
130|cup|tail|val|40|12,61,162
131|jacket|common|val|40|124,66,140
132|storage bin|common|val|40|137,66,73
134|coffee maker|common|val|40|250,253,26
136|dishwasher|common|val|38|55,191,73
138|paper towel roll|tail|val|40|60,126,146
139|machine|common|val|40|153,108,234
140|mat|common|val|20|184,58,125
141|windowsill|common|val|38|135,84,14
145|bar|tail|val|38|139,248,91
148|toaster|tail|val|40|53,200,172
154|bulletin board|common|val|38|63,69,134
155|ironing board|tail|val|39|190,75,186
156|fireplace|common|val|38|127,63,52
157|soap dish|tail|val|40|141,182,25
159|kitchen counter|head|val|12|56,144,89
161|doorframe|head|val|8|64,160,250
163|toilet paper dispenser|tail|val|40|182,86,245
165|mini fridge|common|val|24|139,18,53
166|fire extinguisher|tail|val|40|134,120,54
168|ball|tail|val|40|49,165,42
169|hat|tail|val|40|51,128,133
170|shower curtain rod|tail|val|40|44,21,163
177|water cooler|common|val|39|232,93,193
180|paper cutter|tail|val|40|176,102,54
185|tray|tail|val|40|116,217,17
188|shower door|common|val|38|54,209,150
191|pillar|common|val|38|60,99,204
193|ledge|common|val|38|129,43,144
195|toaster oven|tail|val|40|252,100,106
202|mouse|tail|val|40|187,196,73
208|toilet seat cover dispenser|tail|val|40|13,158,40
213|furniture|common|val|39|52,122,152
214|cart|common|val|40|128,76,202
221|storage container|tail|-|40|187,50,115
229|scale|tail|val|40|180,141,71
230|tissue box|tail|val|40|77,208,35
232|light switch|tail|val|38|72,183,168
233|crate|tail|val|39|97,99,203
242|power outlet|tail|val|40|172,22,158
250|decoration|common|val|40|155,64,40
261|sign|tail|val|40|118,159,30
264|projector|tail|val|40|69,252,148
276|closet door|common|val|8|45,103,173
283|vacuum cleaner|common|val|40|111,38,149
286|candle|tail|-|40|184,9,49
300|plunger|tail|val|40|188,174,67
304|stuffed animal|tail|val|40|53,206,53
312|headphones|tail|val|40|97,235,252
323|dish rack|common|val|40|66,32,182
325|broom|tail|val|40|236,114,195
331|guitar case|tail|-|40|241,154,83
342|range hood|common|val|38|133,240,52
356|dustpan|tail|val|40|16,205,144
370|hair dryer|tail|val|40|75,101,198
392|water bottle|tail|val|40|237,95,251
395|handicap bar|tail|val|38|191,52,49
399|purse|tail|-|40|227,254,54
408|vent|tail|val|40|49,206,87
417|shower floor|tail|val|2|48,113,150
488|water pitcher|tail|val|40|125,73,182
540|mailbox|head|val|29|229,32,114
562|bowl|tail|val|40|158,119,28
570|paper bag|tail|val|37|60,205,27
572|alarm clock|tail|-|40|18,215,201
581|music stand|tail|-|39|79,76,153
609|projector screen|common|val|38|134,13,116
748|divider|common|val|40|192,97,63
776|laundry detergent|tail|val|40|108,163,18
1156|bathroom counter|common|val|12|95,220,156
1163|object|head|val|40|98,141,208
1164|bathroom vanity|head|val|3|144,19,193
1165|closet wall|head|val|1|166,36,57
1166|laundry hamper|common|val|40|212,202,34
1167|bathroom stall door|common|val|8|23,206,34
1168|ceiling light|common|val|38|91,211,236
1169|trash bin|common|val|39|79,55,137
1170|dumbbell|tail|val|40|182,19,117
1171|stair rail|head|val|38|134,76,14
1172|tube|tail|val|40|87,185,28
1173|bathroom cabinet|common|val|3|82,224,187
1174|cd case|tail|-|40|92,110,214
1175|closet rod|tail|val|40|168,80,171
1176|coffee kettle|tail|val|40|197,63,51
1178|structure|common|-|38|175,199,77
1179|shower head|tail|val|38|62,180,98
1180|keyboard piano|tail|val|39|8,91,150
1181|case of water bottles|tail|val|40|77,15,130
1182|coat rack|tail|val|40|154,65,96
1183|storage organizer|common|-|40|197,152,11
1184|folded chair|tail|val|5|59,155,45
1185|fire alarm|tail|val|40|12,147,145
1186|power strip|tail|val|40|54,35,219
1187|calendar|tail|val|40|210,73,181
1188|poster|tail|val|11|221,124,77
1189|potted plant|common|val|40|149,214,66
1190|luggage|tail|-|40|72,185,134
1191|mattress|common|val|4|42,94,198
"""


class ScanNetClass(NamedTuple):
    """One class.

    Args:
        id: In the column `id` of scannetv2-labels.combined.tsv.
        name: In words.
        group: How frequent it is.
        in_val: Whether it occurs in the validation scenes.
        nyu40: Its id among NYU's 40.
        color: The benchmark's, 0 to 255.
    """

    id: int
    name: str
    group: Group
    in_val: bool
    nyu40: int
    color: tuple[int, int, int]


def _parsed(row: str) -> ScanNetClass:
    number, name, group, in_val, nyu40, color = row.split("|")
    r, g, b = map(int, color.split(","))
    return ScanNetClass(int(number), name, group, in_val == "val", int(nyu40), (r, g, b))  # type: ignore[arg-type]


CLASSES: tuple[ScanNetClass, ...] = tuple(_parsed(row) for row in _TABLE.splitlines())
CLASS_IDS = tuple(entry.id for entry in CLASSES)
IGNORE = len(CLASSES)
WALL, CHAIR, FLOOR = 0, 1, 2
STUFF = (WALL, FLOOR)
THINGS = tuple(place for place in range(len(CLASSES)) if place not in STUFF)

# Longer than the largest id of the label table, 1357.
_PLACES = np.full(2048, IGNORE, dtype=np.int64)
_PLACES[list(CLASS_IDS)] = np.arange(len(CLASSES))


def places_of(ids: npt.NDArray[np.integer[Any]]) -> Ids:
    """Places 0..199 of label ids; 200 for every id that is not among the classes."""
    known = (ids >= 0) & (ids < len(_PLACES))
    return np.where(known, _PLACES[np.where(known, ids, 0)], IGNORE)


def swap_stuff_first(labels: npt.NDArray[np.integer[Any]]) -> Ids:
    """Ids 2 and 3 exchanged, or back again: wall, floor, chair, ... as OneFormer3D counts.

    Args:
        labels: Ids of the label table, any shape.
    """
    return np.where(labels == 2, 3, np.where(labels == 3, 2, labels)).astype(np.int64)


def thing_places() -> Ids:
    """Official places of the 198 instance classes, in the order of OneFormer3D's logits."""
    return np.array(THINGS, dtype=np.int64)
