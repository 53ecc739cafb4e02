"""All events that can sound, each with its acoustic class, object, timing and wordings."""

from __future__ import annotations

from dataclasses import dataclass, field

Wording = tuple[str, str, str]  # subject, finite verb phrase, -ing verb phrase


@dataclass(frozen=True)
class Event:
    """One kind of event.

    `sound` is the acoustic class. The events of a family share it and its synthesis; they differ only in the picture,
    so `unseen` has the wordings for an invisible source. `timing` is `sustained` (continuous), `counted` (a few
    strokes whose number is in captions) or `stream` (strokes without a number). `gap` is the range of seconds between
    strokes and `last` the length of a stroke in seconds.
    """

    name: str
    sound: str
    object: str
    seen: tuple[Wording, ...]
    unseen: tuple[Wording, ...] = ()
    timing: str = "sustained"
    gap: tuple[float, float] = (0.0, 0.0)
    last: float = 0.0
    most: int = 4
    even: bool = False  # strokes at equal intervals
    kin: str = ""  # sources of the same kin are never shown silent or dubbed together
    noise: bool = False  # broadband; two such events in one clip cannot be told apart
    far: bool = True  # can be heard from a distance
    weight: float = 1.0
    brief: tuple[float, float] = (0.0, 0.0)  # range of durations in seconds, for short events
    recorded: str = ""  # category of a recordings folder that can be the voice of this event
    synthetic: bool = True

    @property
    def words_unseen(self) -> tuple[Wording, ...]:
        return self.unseen or self.seen


def _w(*lines: str) -> tuple[Wording, ...]:
    out = []
    for line in lines:
        subject, verb, ing = line.split(" | ")
        out.append((subject, verb, ing))
    return tuple(out)


_IDLE = _w("an engine | idles | idling", "a motor | runs | running", "an engine | is running | running idle")
_REV = _w(
    "an engine | revs | revving", "an engine | accelerates | accelerating", "a motor | revs up | revving up"
)
_SIREN = _w(
    "a siren | wails | wailing", "an emergency siren | sounds | sounding", "a siren | blares | blaring"
)
_WHISTLE = _w(
    "something | whistles | whistling", "a whistle | blows | blowing", "a high whistle | sounds | sounding"
)
_WATER = _w("water | runs | running", "water | is flowing | flowing", "water | splashes | splashing")
_MAN = _w("a man | speaks | speaking", "a man | talks | talking", "a male voice | is speaking | speaking")
_BEEP = _w(
    "a device | beeps | beeping",
    "something | is beeping | beeping",
    "an electronic beep | repeats | repeating",
)
_MOTOR = _w(
    "a motor | hums | humming", "a machine | whirs | whirring", "an electric motor | is running | running"
)

_F = 0.75  # weight of each member of a family; families therefore occur more often than single events

SYNTHETIC: tuple[Event, ...] = (
    Event("car idling", "engine idling", "car", _w(
        "a car | idles | idling", "a car engine | is idling | idling",
        "the engine of a car | runs | running"),
        _IDLE, kin="engine", weight=_F),
    Event("boat idling", "engine idling", "boat", _w(
        "a boat engine | idles | idling", "a motorboat | is idling | idling",
        "the motor of a boat | runs | running"),
        _IDLE, kin="engine", weight=_F),
    Event("motorcycle idling", "engine idling", "motorcycle", _w(
        "a motorcycle | idles | idling", "a motorcycle engine | is idling | idling",
        "a motorbike | runs | running"),
        _IDLE, kin="engine", weight=_F),
    Event("car revving", "engine revving", "car", _w(
        "a car | revs | revving", "a car engine | is revving | revving",
        "a car | accelerates | accelerating"),
        _REV, kin="engine", weight=_F),
    Event("motorcycle revving", "engine revving", "motorcycle", _w(
        "a motorcycle | revs | revving", "a motorbike | is revving | revving",
        "a motorcycle engine | accelerates | accelerating"), _REV, kin="engine", weight=_F),
    Event("ambulance siren", "siren", "ambulance", _w(
        "an ambulance siren | wails | wailing", "the siren of an ambulance | sounds | sounding",
        "an ambulance | blares its siren | blaring its siren"), _SIREN, kin="engine", weight=_F),
    Event("police siren", "siren", "police car", _w(
        "a police siren | wails | wailing", "the siren of a police car | sounds | sounding",
        "a police car | blares its siren | blaring its siren"), _SIREN, kin="engine", weight=_F),
    Event("fire truck siren", "siren", "fire truck", _w(
        "a fire truck siren | wails | wailing", "the siren of a fire engine | sounds | sounding",
        "a fire truck | blares its siren | blaring its siren"), _SIREN, kin="engine", weight=_F),
    Event("kettle whistling", "whistling", "kettle", _w(
        "a kettle | whistles | whistling", "a tea kettle | is whistling | whistling",
        "a kettle of boiling water | whistles | whistling"), _WHISTLE, kin="whistle", weight=_F),
    Event("referee whistling", "whistling", "referee", _w(
        "a referee | blows a whistle | blowing a whistle",
        "a whistle | is blown by a referee | being blown by a referee",
        "a referee | whistles | whistling"), _WHISTLE, kin="whistle voice", weight=_F),
    Event("faucet running", "running water", "faucet", _w(
        "water | runs from a faucet | running from a faucet", "a faucet | is running | running",
        "tap water | flows into a sink | flowing into a sink"), _WATER, kin="water", noise=True, weight=_F),
    Event("waterfall rushing", "running water", "waterfall", _w(
        "a waterfall | rushes | rushing", "water | falls over a waterfall | falling over a waterfall",
        "a waterfall | is splashing | splashing"), _WATER, kin="water", noise=True, weight=_F),
    Event("fountain splashing", "running water", "fountain", _w(
        "a fountain | splashes | splashing", "water | splashes in a fountain | splashing in a fountain",
        "a water fountain | is flowing | flowing"), _WATER, kin="water", noise=True, weight=_F),
    Event("man speaking", "male speech", "man", _w(
        "a man | speaks | speaking", "a man | is talking | talking", "an adult male | speaks | speaking"),
        _MAN, kin="voice", weight=_F),
    Event("television speech", "male speech", "television", _w(
        "a man | speaks on television | speaking on television",
        "a television | plays a man's speech | playing a man's speech",
        "a man | is talking on a TV | talking on a TV"), _MAN, kin="voice", weight=_F),
    Event("radio speech", "male speech", "radio", _w(
        "a man | speaks on the radio | speaking on the radio",
        "a radio | plays a man's speech | playing a man's speech",
        "a man | is talking over a radio | talking over a radio"), _MAN, kin="voice", weight=_F),
    Event("alarm clock beeping", "beeping", "alarm clock", _w(
        "an alarm clock | beeps | beeping", "an alarm clock | is beeping | beeping",
        "the alarm of a clock | goes off | going off"), _BEEP, "stream", (0.8, 1.1), 0.7, even=True,
        kin="clock beep", weight=_F),
    Event("microwave beeping", "beeping", "microwave", _w(
        "a microwave | beeps | beeping", "a microwave oven | is beeping | beeping",
        "the timer of a microwave | goes off | going off"), _BEEP, "stream", (0.8, 1.1), 0.7, even=True,
        kin="beep", weight=_F),
    Event("vacuum cleaner running", "motor", "vacuum cleaner", _w(
        "a vacuum cleaner | runs | running", "a vacuum cleaner | is humming | humming",
        "someone | vacuums the floor | vacuuming the floor"), _MOTOR, kin="motor", noise=True, weight=_F),
    Event("hair dryer running", "motor", "hair dryer", _w(
        "a hair dryer | runs | running", "a hair dryer | is blowing | blowing",
        "someone | dries their hair | drying their hair"), _MOTOR, kin="motor", noise=True, weight=_F),
    Event("bell ringing", "bell", "bell", _w(
        "a church bell | rings | ringing", "a bell | tolls | tolling", "a large bell | chimes | chiming"),
        timing="counted", gap=(1.2, 1.9), last=2.4, even=True, kin="bell"),
    Event("telephone ringing", "telephone", "telephone", _w(
        "a telephone | rings | ringing", "a phone | rings | ringing", "a phone | is ringing | ringing"),
        timing="counted", gap=(2.0, 2.5), last=1.7, most=3, even=True, kin="beep"),
    Event("bird singing", "bird song", "bird", _w(
        "a bird | chirps | chirping", "a bird | sings | singing", "a songbird | tweets | tweeting"),
        timing="stream", gap=(0.6, 1.3), last=0.6, kin="bird"),
    Event("drumming", "drum", "drum", _w(
        "a drum | beats | beating", "a drum | is played | being played",
        "someone | plays a drum | playing a drum"),
        timing="stream", gap=(0.28, 0.55), last=0.4, even=True, kin="music"),
    Event("guitar playing", "guitar", "guitar", _w(
        "a guitar | plays | playing", "someone | strums a guitar | strumming a guitar",
        "guitar music | is playing | playing"), timing="stream", gap=(0.25, 0.5), last=1.2, kin="music"),
    Event("rain falling", "rain", "rain", _w(
        "rain | falls | falling", "rain | is coming down | coming down", "rain | patters | pattering"),
        kin="water", noise=True, far=False, recorded="rain"),
    Event("thunder", "thunder", "storm cloud", _w(
        "thunder | rumbles | rumbling", "thunder | roars | roaring", "thunder | booms | booming"),
        timing="stream", gap=(2.2, 3.4), last=2.6, kin="weather"),
    Event("wind blowing", "wind", "tree", _w(
        "wind | blows | blowing", "the wind | howls | howling", "wind | gusts | gusting"),
        kin="weather", noise=True, far=False),
    Event("water dripping", "dripping", "bucket", _w(
        "water | drips | dripping", "water | drips into a bucket | dripping into a bucket",
        "drops of water | fall | falling"),
        _w("water | drips | dripping", "drops of water | fall | falling", "something | drips | dripping"),
        timing="stream", gap=(0.45, 1.1), last=0.2, kin="water", far=False),
    Event("typing", "typing", "keyboard", _w(
        "someone | types on a keyboard | typing on a keyboard", "a person | is typing | typing",
        "a keyboard | clicks | clicking"), timing="stream",
        gap=(0.09, 0.26), last=0.1, kin="click", far=False),
    Event("footsteps", "footsteps", "walker", _w(
        "footsteps | tap | tapping", "a person | walks | walking", "someone | is walking | walking"),
        timing="stream", gap=(0.42, 0.68), last=0.25, even=True, kin="click"),
    Event("door knocking", "knocking", "door", _w(
        "someone | knocks on a door | knocking on a door", "a person | knocks | knocking",
        "someone | is knocking at a door | knocking at a door"), timing="counted", gap=(0.28, 0.5), last=0.25,
        most=5, even=True, kin="click"),
    Event("applause", "applause", "audience", _w(
        "a crowd | applauds | applauding", "an audience | claps | clapping", "people | clap | clapping"),
        kin="voice", noise=True),
    Event("woman speaking", "female speech", "woman", _w(
        "a woman | speaks | speaking", "a woman | is talking | talking",
        "an adult female | speaks | speaking"),
        kin="voice"),
    Event("child speaking", "child speech", "child", _w(
        "a child | speaks | speaking", "a kid | is talking | talking", "a young child | speaks | speaking"),
        kin="voice"),
    Event("laughing", "laughter", "laughing person", _w(
        "a person | laughs | laughing", "someone | is laughing | laughing",
        "a person | chuckles | chuckling"),
        kin="voice"),
    Event("bee buzzing", "insect", "bee", _w(
        "a bee | buzzes | buzzing", "an insect | is buzzing | buzzing",
        "a bee | buzzes around | buzzing around"),
        _w("an insect | buzzes | buzzing", "an insect | is buzzing | buzzing",
        "a bug | buzzes around | buzzing around"),
        kin="insect", far=False),
    Event("clock ticking", "ticking", "clock", _w(
        "a clock | ticks | ticking", "a clock | is ticking | ticking",
        "a clock | goes tick tock | going tick tock"),
        timing="stream", gap=(0.4, 0.75), last=0.06, even=True, kin="click clock", far=False,
        recorded="clock_tick"),
    Event("helicopter flying", "helicopter", "helicopter", _w(
        "a helicopter | flies | flying", "helicopter blades | spin | spinning",
        "a helicopter | hovers | hovering"),
        kin="engine", noise=True, recorded="helicopter"),
    Event("truck honking", "truck horn", "truck", _w(
        "a truck | honks | honking", "a truck horn | honks | honking",
        "a truck | honks its horn | honking its horn"),
        _w("a horn | honks | honking", "a vehicle horn | honks | honking",
        "a vehicle | honks its horn | honking its horn"),
        timing="counted", gap=(0.7, 1.1), last=0.8, kin="engine horn"),
    Event("train horn", "train horn", "train", _w(
        "a train | blows its horn | blowing its horn", "a train horn | blows | blowing",
        "a train | sounds its horn | sounding its horn"), timing="counted", gap=(2.4, 3.0), last=2.3, most=3,
        kin="engine horn"),
    Event("cat meowing", "meow", "cat", _w(
        "a cat | meows | meowing", "a kitten | meows | meowing", "a cat | is meowing | meowing"),
        timing="counted", gap=(1.1, 1.8), last=0.95, kin="cat"),
    Event("cow mooing", "moo", "cow", _w("a cow | moos | mooing", "a cow | bellows | bellowing"),
        timing="counted", gap=(2.1, 2.8), last=1.8, most=3, kin="cow"),
    Event("frog croaking", "croak", "frog", _w("a frog | croaks | croaking", "a toad | croaks | croaking"),
        timing="stream", gap=(0.6, 1.1), last=0.4, kin="frog"),
    Event("owl hooting", "hoot", "owl", _w("an owl | hoots | hooting", "an owl | calls | calling"),
        timing="counted", gap=(1.6, 2.3), last=1.1, kin="bird"),
    Event("duck quacking", "quack", "duck", _w("a duck | quacks | quacking",
        "a duck | is quacking | quacking"),
        timing="counted", gap=(0.4, 0.7), last=0.25, most=5, kin="bird"),
    Event("sawing", "sawing", "saw", _w(
        "someone | saws wood | sawing wood", "a saw | cuts wood | cutting wood", "a person | saws | sawing"),
        timing="stream", gap=(0.4, 0.6), last=0.5, even=True, kin="saw", noise=True),
)  # fmt: skip

# events that need a real recording; a short recording is repeated for the duration of the event
RECORDED: tuple[Event, ...] = (
    Event("dog barking", "dog bark", "dog", _w(
        "a dog | barks | barking", "a dog | is barking | barking", "a dog | woofs | woofing"),
        kin="dog", weight=1.6, brief=(1.5, 6.0), recorded="dog_bark", synthetic=False),
    Event("baby crying", "baby cry", "baby", _w(
        "a baby | cries | crying", "an infant | is crying | crying", "a baby | wails | wailing"),
        kin="voice", weight=1.6, brief=(3.0, 8.0), recorded="baby_cry", synthetic=False),
    Event("chainsaw running", "chainsaw", "chainsaw", _w(
        "a chainsaw | runs | running", "a chainsaw | is buzzing | buzzing", "a chainsaw | cuts | cutting"),
        kin="motor engine", noise=True, weight=1.6, recorded="chainsaw", synthetic=False),
    Event("fire crackling", "fire crackling", "campfire", _w(
        "a fire | crackles | crackling", "a campfire | is burning | burning",
        "burning wood | crackles | crackling"),
        kin="fire", weight=1.6, recorded="fire_crackling", synthetic=False),
    Event("sneezing", "sneeze", "sneezing person", _w(
        "a person | sneezes | sneezing", "someone | sneezes | sneezing", "a person | is sneezing | sneezing"),
        kin="voice", weight=1.6, brief=(1.2, 4.0), recorded="person_sneeze", synthetic=False),
    Event("rooster crowing", "rooster crow", "rooster", _w(
        "a rooster | crows | crowing", "a rooster | is crowing | crowing", "a cock | crows | crowing"),
        kin="bird", weight=1.6, brief=(2.0, 6.0), recorded="rooster", synthetic=False),
    Event("sea waves", "sea waves", "sea", _w(
        "waves | crash | crashing", "ocean waves | roll in | rolling in",
        "sea waves | splash on the shore | splashing on the shore"),
        kin="water", noise=True, weight=1.6, recorded="sea_waves", synthetic=False),
)  # fmt: skip


def unknown_event(category: str) -> Event:
    """An event for a category of recordings without an entry. Its captions use the category name."""
    word = " ".join(category.replace("_", " ").replace("-", " ").split()).lower() or "something"
    wordings = _w(f"{word} | is heard | sounding", f"a sound of {word} | is heard | being heard")
    return Event(word, word, f"sign: {word}", wordings, weight=1.6, recorded=category, synthetic=False)


@dataclass(frozen=True)
class Catalogue:
    """The events of one world in a fixed order, and the categories with recordings."""

    events: tuple[Event, ...]
    recorded: frozenset[str] = field(default_factory=frozenset)  # available categories

    @classmethod
    def for_categories(cls, categories: tuple[str, ...]) -> Catalogue:
        """All synthetic events, and the events of the given categories of recordings."""
        known = {e.recorded for e in SYNTHETIC + RECORDED if e.recorded}
        extra = [e for e in RECORDED if e.recorded in categories]
        extra += [unknown_event(c) for c in sorted(categories) if c not in known]
        return cls(SYNTHETIC + tuple(extra), frozenset(categories))

    @property
    def sound_classes(self) -> list[str]:
        return list(dict.fromkeys(e.sound for e in self.events))
