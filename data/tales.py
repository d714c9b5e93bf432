#!/usr/bin/env python3
"""Writes tales.txt: small tales by a small grammar, the same ones at every run.

A model of characters learns from them. Five tellers know different places, beasts and deeds, so
that each part of a fleet can hold a teller of its own. Letters, space, comma, full stop, newline.
"""

import pathlib

TELLERS = [
    dict(
        place="by the grey sea|on the long pier|under the tall cliffs|at the quiet harbour",
        who="the fisher|an old captain|the keeper of the light|a drenched gull",
        thing="a net of silver fish|the broken oar|a bottle of green glass|the salt bread",
        deed="mended|carried|lost|found|hid|sold",
        end="and the tide came in|and the wind turned north|and the lamp burned all night",
    ),
    dict(
        place="in the high hills|beyond the stone pass|near the frozen spring|on the windy ridge",
        who="the shepherd|a thin goat|the miller|a girl with a red scarf",
        thing="the copper bell|a sack of barley|the last warm cloak|a wheel of cheese",
        deed="guarded|carried|shared|dropped|forgot|weighed",
        end="and the snow began to fall|and the bells answered below|and nobody spoke of it again",
    ),
    dict(
        place="behind the market|in the narrow street|under the clock tower|at the bridge",
        who="the baker|a clever thief|the watchmaker|a boy with a cart",
        thing="the brass key|a basket of plums|the painted sign|a letter without a name",
        deed="polished|stole|returned|bought|hid|counted",
        end="and the clock struck nine|and the crowd went home|and the shutters closed",
    ),
    dict(
        place="in the deep wood|beside the black pond|among the birches|where the paths cross",
        who="the woodcutter|a patient owl|the red fox|a lost drummer",
        thing="the hollow log|a crown of moss|the blunt axe|a nest of four eggs",
        deed="watched|buried|found|guarded|traded|followed",
        end="and the leaves kept quiet|and the moon rose late|and the fire burned down",
    ),
    dict(
        place="at the edge of the desert|by the dry well|in the shade of the palms|on the salt road",
        who="the trader|a tired camel|the well digger|a singer of songs",
        thing="the water skin|a bag of dates|the blue carpet|a map drawn in sand",
        deed="carried|sold|mended|shared|lost|praised",
        end="and the stars came out|and the sand covered the tracks|and the caravan moved on",
    ),
]
TIMES = "one morning|at noon|late in the day|before the rain|that night|on the third day"
FRAMES = [
    "{time} {who} {deed} {thing} {place}, {end}.",
    "{place} {who} {deed} {thing}, {end}.",
    "{who} {deed} {thing}. {time} {other} {deed2} it {place}.",
    "{time}, {place}, {who} met {other}, {end}.",
]
SENTENCES = 60


class Dice:
    """SplitMix64, so that the text does not depend on a library."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) * bound) >> 64

    def pick(self, words):
        words = words.split("|") if isinstance(words, str) else words
        return words[self.below(len(words))]


def tale(teller, dice):
    lines = []
    for _ in range(SENTENCES):
        words = {name: dice.pick(choices) for name, choices in teller.items()}
        words.update(time=dice.pick(TIMES), other=dice.pick(teller["who"]))
        words.update(deed2=dice.pick(teller["deed"]))
        lines.append(dice.pick(FRAMES).format(**words))
    return "\n".join(lines) + "\n"


def main():
    dice = Dice(2026)
    text = "\n".join(tale(teller, dice) for teller in TELLERS)
    pathlib.Path(__file__).with_name("tales.txt").write_text(text, encoding="ascii")


if __name__ == "__main__":
    main()
