"""How the report looks: one style sheet, light and dark, from phone to paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{--paper:#fff;--card:#f6f7f9;--ink:#1d2127;--soft:#5b6470;--line:#e1e5ea;--blue:#0072b2;
--pale:#d3e6f3;--warn:#a84a00;--warnpaper:#fff4e8}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2126;--ink:#e6e9ed;
--soft:#a0a9b4;--line:#30363d;--blue:#5cb8ee;--pale:#1e3d52;--warn:#ffb56b;--warnpaper:#2b2118}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.55;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-size:1rem}
header,main,footer{max-width:60rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:3rem 0 .6rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .4rem}
p{margin:.5rem 0;max-width:46rem}
a{color:var(--blue)}
.soft{color:var(--soft)}
.hero{display:flex;flex-wrap:wrap;gap:1.25rem 2.5rem;align-items:center;margin:1.5rem 0;
padding:1.5rem;background:var(--card);border-radius:.9rem}
.big{font-size:3.6rem;line-height:1;font-weight:700;letter-spacing:-.02em;color:var(--blue);
font-variant-numeric:tabular-nums}
.hero>div:last-child{flex:1 1 17rem}
.hero p{margin:.15rem 0}
.scale{position:relative;height:.7rem;margin:.6rem 0 .2rem;border-radius:.35rem;
background:var(--line)}
.scale i{position:absolute;top:0;bottom:0;border-radius:.35rem;background:var(--blue);opacity:.45}
.scale b{position:absolute;top:-.15rem;bottom:-.15rem;width:.24rem;margin-left:-.12rem;
border-radius:.12rem;background:var(--blue)}
dl.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.8rem,1fr));gap:.7rem;
margin:1rem 0}
dl.tiles div{background:var(--card);border-radius:.7rem;padding:.7rem .9rem}
dl.tiles dt{font-size:.82rem;color:var(--soft)}
dl.tiles dd{margin:0;font-weight:600;overflow-wrap:anywhere}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.25rem;margin:.8rem 0}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line);
vertical-align:middle}
th{font-weight:600;color:var(--soft);font-size:.84rem;white-space:nowrap}
tbody th{color:inherit;font-weight:500;font-size:inherit;white-space:normal;
overflow-wrap:break-word;min-width:6.5rem;max-width:22rem}
td.n,th.n{text-align:right;white-space:nowrap}
td.w{min-width:10rem;width:32%}
.recall{position:relative;display:block;height:.95rem;border-radius:.2rem;background:var(--line)}
.recall i{position:absolute;left:0;top:0;bottom:0;border-radius:.2rem;background:var(--blue);
opacity:.7}
.recall u{position:absolute;top:calc(50% - 1px);height:2px;background:var(--ink)}
figure{margin:1rem 0}
figcaption{font-size:.88rem;color:var(--soft);margin-top:.3rem;max-width:46rem}
figure .scroll{margin:0}
figure.plot img{display:block;width:100%;max-width:var(--wide,52rem);min-width:var(--narrow,31rem)}
@media (prefers-color-scheme:dark){
figure.plot img{filter:invert(1) hue-rotate(180deg);mix-blend-mode:screen}}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1rem;
list-style:none;padding:0;margin:1rem 0}
.grid img,.grid .gone{display:block;width:100%;aspect-ratio:1;object-fit:contain;
background:var(--card);border-radius:.5rem}
.grid .gone{display:grid;place-items:center;color:var(--soft);font-size:.85rem}
.grid img.tiny{image-rendering:pixelated}
.grid p{margin:.35rem 0 0;font-size:.88rem;line-height:1.35;overflow-wrap:anywhere}
.note{background:var(--warnpaper);border-left:.25rem solid var(--warn);border-radius:.4rem;
padding:.6rem 1rem;margin:1rem 0}
pre{background:var(--card);border-radius:.6rem;padding:.8rem 1rem;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:.88rem}
code{font-size:.92em;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--blue)}
ul.plain{padding-left:1.2rem;max-width:46rem}
ul.plain li{margin:.35rem 0}
footer{color:var(--soft);font-size:.85rem;padding-top:2rem;padding-bottom:3rem}
@media (max-width:34rem){.big{font-size:2.9rem}dl.facts{grid-template-columns:1fr}
dl.facts dd{margin-bottom:.4rem}td.w{min-width:6rem}td .soft{display:block}
th,td{padding-right:.45rem}tbody th{min-width:5rem}table{font-size:.86rem}}
@media print{h2{break-after:avoid}figure,tr,.grid li{break-inside:avoid}}
"""
