"""Clothing words: what is worn above and below the waist, and what may describe it.

Written for captions of pedestrians (CUHK-PEDES, ICFG-PEDES, RSTPReid vocabulary, British and American). `upper` is
head to waist, `lower` is waist to feet including shoes and socks; dresses, suits and the like cover both. Bags and
other belongings are carried, not worn, and count as neither; hair is no clothing.
"""

from __future__ import annotations


def word_set(words: str) -> frozenset[str]:
    """The words of a blank-separated list."""
    return frozenset(words.split())


def _with_plurals(words: str) -> frozenset[str]:
    singular = words.split()
    plural = [w + ("es" if w.endswith(("s", "ch", "sh", "ss")) else "s") for w in singular]
    return frozenset(singular + plural)


UPPER = _with_plurals(
    "shirt t-shirt tshirt tee top blouse sweater jumper pullover hoodie hoody sweatshirt jacket coat overcoat "
    "raincoat trenchcoat topcoat blazer cardigan vest waistcoat gilet parka anorak windbreaker polo polo-shirt tank "
    "tank-top crop-top tunic camisole singlet undershirt turtleneck fleece poncho cape shawl scarf bandana tie necktie "
    "bowtie bow-tie hat cap beanie hood helmet visor headscarf headband turban hijab mask facemask glove mitten bodice "
    "bra bikini tube-top halter henley apron tabard bomber jersey"
) | word_set("glasses sunglasses eyeglasses spectacles scarves ties knitwear outerwear headgear")

# Words whose singular is an adjective ("short", "tight") stand in the plural only.
LOWER = _with_plurals(
    "trouser pant jean skirt miniskirt mini-skirt legging slack chino jogger sweatpant stocking capri culotte shoe "
    "sneaker boot bootie sandal loafer slipper trainer flip-flop flipflop flop clog pump moccasin sock heel high-heel "
    "stiletto espadrille sarong belt jegging high-top"
) | word_set(
    "shorts tights breeches bermudas bottoms wellingtons oxfords brogues khakis denims corduroys footwear hosiery "
    "pantyhose legwear knickerbockers crocs flats kilt"
)

FOOTWEAR = _with_plurals(
    "shoe sneaker boot bootie sandal loafer slipper trainer flip-flop flipflop flop clog pump moccasin heel high-heel "
    "stiletto espadrille high-top"
) | word_set("wellingtons oxfords brogues footwear crocs flats")

BOTH = _with_plurals(
    "dress gown sundress frock jumpsuit romper overall coverall onesie suit tracksuit uniform robe bathrobe kimono "
    "qipao cheongsam sari saree abaya cassock wetsuit playsuit"
) | word_set("pyjamas pajamas dungarees")

BELONGINGS = _with_plurals(
    "backpack rucksack bag handbag purse satchel tote suitcase luggage briefcase knapsack umbrella phone "
    "cellphone smartphone bottle cup book folder paper pack stroller pram bicycle bike scooter box camera laptop tablet "
    "pouch fanny-pack waist-bag shoulder-bag messenger-bag trolley case wallet lanyard watch bracelet ring "
    "necklace earring earphone headphone cart basket skateboard ball newspaper magazine"
) | word_set("luggage")

BODY = _with_plurals(
    "hair ponytail bun braid fringe beard moustache mustache face head arm hand leg foot skin waist shoulder neck "
    "knee ankle chest back hip ear eye build figure hairstyle wrist side front elbow thigh calf"
) | word_set("feet bangs build calves hairs")

# Parts of a garment: they carry their adjectives to the garment they belong to, the one named before.
DETAILS = _with_plurals(
    "stripe sleeve collar logo print dot pattern pocket button zipper zip line letter trim cuff check flower lining "
    "lace sole neckline v-neck band hem graphic design panel strap buckle rip hole toe tongue shoelace number badge "
    "emblem ruffle polka-dot text word edge image picture"
) | word_set("lettering writing piping embroidery fur")
# Parts that only one half of the body has, whatever was named before.
UPPER_DETAILS = word_set("sleeve sleeves collar collars cuff cuffs neckline v-neck")
LOWER_DETAILS = word_set("sole soles shoelace shoelaces toe toes tongue tongues")

COLOURS = word_set(
    "black white gray grey red orange yellow green blue purple pink brown beige tan khaki navy cream ivory gold golden "
    "silver maroon burgundy crimson scarlet violet lavender lilac magenta fuchsia turquoise teal cyan aqua mint olive "
    "lime mustard peach coral salmon rose charcoal camel chocolate rust indigo plum wine denim nude blonde blond "
    "colorful colourful multicolored multicoloured multi-colored multi-coloured colored coloured bright dark light "
    "pale deep neon fluorescent pastel vivid faded dark-colored light-colored dark-coloured light-coloured dark-blue "
    "light-blue navy-blue sky-blue dark-grey light-grey dark-gray light-gray dark-green light-green sky royal bluish "
    "reddish greenish greyish grayish brownish yellowish pinkish whitish blackish"
)
DESCRIBERS = word_set(
    "long short full half three-quarter mid quarter sleeved sleeve sleeves sleeveless long-sleeved short-sleeved "
    "long-sleeve short-sleeve half-sleeved half-sleeve knee-length ankle-length calf-length full-length mid-length "
    "cropped rolled rolled-up length high low low-cut high-heeled heeled flat round pointed open-toed open "
    "striped stripe plaid checked checkered chequered dotted polka dot polka-dot floral flowered flowery patterned "
    "printed print graphic camouflage camo tie-dye tie-dyed leopard animal paisley plain solid two-tone two-toned "
    "horizontal vertical diagonal thin thick wide narrow broad fine pinstriped pinstripe tartan argyle houndstooth "
    "leather denim cotton woollen wool woolen knit knitted silk satin lace velvet corduroy suede canvas fur furry "
    "fleece nylon mesh linen puffy padded quilted down fluffy shiny sheer see-through transparent ripped torn distressed "
    "washed faded pleated flared ruffled fringed embroidered sequined studded "
    "loose tight fitted slim skinny baggy oversized loose-fitting tight-fitting form-fitting fit fitting big small "
    "large little huge tiny large-sized mini maxi midi straight bootcut bell-bottom high-waisted low-rise "
    "hooded collared button-down button-up button buttoned unbuttoned zip zip-up zipped zippered zipper v-neck v-necked crew crewneck "
    "crew-neck round-neck turtleneck scoop strapless off-shoulder one-shoulder belted double-breasted "
    "single-breasted sporty sport sports athletic casual formal business dressy running tennis basketball baseball "
    "football gym yoga cargo work hiking winter summer spring rain trench sweat bomber puffer varsity letterman biker "
    "motorcycle polo dress suit tank tee t tube crop tank-top pencil a-line jean cocktail evening school military "
    "ankle snow cowboy combat rain uggs platform wedge lace-up slip-on velcro athletic high-top low-top bucket "
    "straw knit woolly sun ski swimming track jogging utility safety reflective high-visibility hi-vis chef "
    "new old clean dirty simple stylish fashionable traditional modern warm heavy lightweight thin "
    "outer inner matching same similar very slightly mostly mainly all-black all-white ankle-high "
    "knee-high thigh-high over-sized sized style styled type kind-of kind pair graphic-print light-weight"
)

# What may lead from a garment to an adjective behind it: "the shirt is red", "a shirt in red".
COPULAS = word_set("is are was were looks look appears appear seems seem in of")
DETERMINERS = word_set("a an the his her their its this that these those")
# Words that end a noun phrase to the left of a garment.
STOPS = (
    COPULAS
    | DETERMINERS
    | word_set(
        "he she they him them it some any another other one two both with on at by for from to under over or but plus "
        "also as while which who whose where when underneath beneath above below behind beside near around across through "
        "onto into without within along paired matched wearing wears wear worn wore dressed clad has have had "
        "having carrying carries carry carried holding holds hold held sporting dons donning features featuring "
        "matches combined complemented accompanied topped walking walks walk standing stands stand riding rides sitting "
        "sits looking talking using uses be been being there here not no man woman boy girl guy lady person pedestrian male "
        "female men women people individual someone gentleman upper lower body clothes clothing outfit garment color colour "
        "colors colours only just then i you we can cannot could may might will would none nothing n/a mentioned unknown "
        "visible"
    )
)
