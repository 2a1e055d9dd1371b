"""The names of the invented world: towns, and the values of their six attributes. All of them differ."""


def listed(text: str, separator: str | None = None) -> list[str]:
    """The words of a text, or its parts between separators."""
    return [" ".join(part.split()) for part in text.split(separator)]


TOWNS = listed("""
Arlow Brune Cadmor Dunvale Elsing Farrow Gorsey Hexley Immer Jarvel Kestle Lorne Mardle Norwick Ostrey Pagham Quorn
Rendle Sotherby Tilbeck Ulver Vantry Wexcombe Yelland Zennor Abbas Bexter Corrin Dalby Emscote Fennick Grisby Holtby
Ilsham Jevling Kirrel Luskin Mossop Nethers Oakham Pruth Quenby Roslay Skerry Thaxby Ufford Vickers Warrel Yoxley Zeal
Ambry Bodmer Clunes Drixby Eyam Foxholt Glaven Hursley Inverly Jessop Knole Limber Morvah Nunwell Orrin Plaxton Quarle
Rudge Sibford Trellick Umbrel Velmore Wolding Yarm Zetland Ansty Brackla Crewdon Dovercot Exbury Froom Gadby Hinksey
Ivybrook Jolby Keld Lamburn Madron Nacton Orby Pendine Quint Rackham Selwick Tarrant Uplow Venn Wanting Yeovale Zouch
Aldous Bixley Coleby Denby Ebford Fulmer Gwithen Hambly Isling Jurby Kenwyn Lostock Mullion Narne Oxwich Perran
Runnock Stoken Tywell Wivel
""")

PEOPLE = listed(
    """
Tessa Quill, Oren Bask, Mila Thorne, Jonas Pike, Edda Marsh, Felix Groat, Greta Lomax, Hugo Sterne, Ida Penrose,
Kasper Vane, Lotte Brandt, Magnus Hale, Nora Fitch, Otto Kemble, Petra Dunn, Quentin Moss, Rosa Tull, Simon Ashby,
Thea Wick, Ulrich Zorn, Vera Cobb, Walter Ives, Xenia Pardo, Yusuf Amari, Zelda Knox, Anton Reed, Bella Frost, Cyril
Hobbs, Dora Lind, Emil Sand, Flora Nash, Gideon Peck, Hetty Gray, Ivo Lasker, Judith Bloom, Klaus Weir, Lena Orchard,
Milo Tanner, Nell Juster, Oscar Flint
""",
    ",",
)

RIVERS = listed("""
Vell Osk Tarn Ibber Lune Wend Sarn Ebble Nidd Oove Pell Rusk Yarrow Zill Drave Fenn Gault Hesk Jory Kelt Mern Umber
Cray Bovey Axel Dule Isk Thrum Wharl Swale Torrin Lyde Narr Plym Ravel Stour Usk Vire Wimble Coln
""")

BIRDS = listed("""
heron kestrel wren robin magpie raven falcon eagle owl stork crane swan goose duck lark finch sparrow swallow swift
cuckoo thrush starling jay crow rook buzzard osprey kite gull tern puffin pelican ibis egret plover curlew snipe quail
partridge pheasant
""")

TREES = listed("""
oak ash elm birch rowan willow maple poplar alder hazel larch cedar spruce yew holly beech aspen linden cypress
juniper hornbeam chestnut walnut sycamore plane hawthorn acacia magnolia mulberry medlar quince pine fir laurel myrtle
olive plum pear cherry apple
""")

DISHES = listed("""
porridge dumplings pancakes goulash risotto chowder stew omelette pudding waffles noodles lasagne paella ratatouille
sauerkraut meatballs trifle custard gingerbread marzipan nougat crumble strudel haggis kedgeree casserole fritters
croquettes polenta couscous ravioli gnocchi pretzels crumpets scones muffins brioche shortbread flapjacks broth
""")

CRAFTS = listed("""
glass rope pottery clocks candles carpets lace bells barrels baskets violins paper soap ink boots gloves hats lanterns
saddles knives locks mirrors buttons needles brushes drums flutes ladders wagons boats sails bricks tiles silk linen
velvet honey salt pewter ribbons
""")

VALUES = {"mayor": PEOPLE, "river": RIVERS, "bird": BIRDS, "tree": TREES, "dish": DISHES, "craft": CRAFTS}
ATTRIBUTES = tuple(VALUES)
SPEAKERS = ["a traveller", "a child", "a trader", "a guest", "the baker", "the miller", "the teacher", "an old man"]
SAYING = ["asked", "said", "wondered"]
