#!/usr/bin/env python3
"""Exports vectors from the executable model of the lineage rules (`lineage_model.py`, kept beside the
design): pairs of sites as random histories leave them, and what the model says that the second must
pull from the first (null: cannot be known) and whether its position lies in the first one's past.

    python3 export.py MODEL_DIRECTORY > lineage.json

`tests/vectors.rs` compares the crate's functions with them. The draw is seeded: the same model gives
the same file.
"""
import json
import random
import sys

sys.path.insert(0, sys.argv[1])
import lineage_model as model  # noqa: E402

PER_KIND = 24


def site(s):
    partial = s.partial and {
        "cut": s.partial["cut"], "remaining": s.partial["rem"], "direct": s.partial["direct"],
    }
    return {
        "chain": s.chain,
        "ends": [[c, e] for c, e in sorted(s.end.items()) if e is not None and c in s.chain[:-1]],
        "layers": [[mask, list(names)] for _, _, mask, names in s.layers],
        "open": s.openm, "direct": s.dmask, "missing": s.missing, "sequence": s.seq,
        "partial": partial, "fuzzy_end": s.fuzzy_end,
    }


def kind(world, a, b, need, in_past):
    """What makes a vector interesting; as many of each kind are kept."""
    common = world.common(a, b)
    fork = common is not None and common not in (a.chain[-1], b.chain[-1])
    carried = bool(b.partial and b.partial["cut"] in a.chain)
    unknown_end = b.seq > 0 and b.chain[-1] in a.chain[:-1] and a.end.get(b.chain[-1]) is None
    return (need is None, in_past, fork, carried, unknown_end, b.fuzzy_end is not None,
            bool(b.missing), any(len(n) > 2 for _, _, _, n in a.layers + b.layers))


def main():
    kept = {}
    for seed in range(6000):
        # Merged cuts are kept in the names of layers, as the product keeps them.
        flags = {"prune": seed % 3 != 0}
        world = model.World(flags, random.Random(seed), 2 + seed % 2)
        for _ in range(24):
            world.op()
            sites = [s for s in world.S if s.role != "off"]
            for a in sites:
                for b in sites:
                    if a is b:
                        continue
                    need, in_past = world.need(a, b), world.inpast(a, b)
                    found = kept.setdefault(kind(world, a, b, need, in_past), [])
                    text = json.dumps({"a": site(a), "b": site(b), "need": need, "in_past": in_past})
                    if len(found) < PER_KIND and text not in found:
                        found.append(text)
    vectors = [text for _, texts in sorted(kept.items()) for text in texts]
    print("[\n" + ",\n".join(vectors) + "\n]")


main()
