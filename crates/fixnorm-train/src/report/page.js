'use strict';
{
  const SVG = 'http://www.w3.org/2000/svg';
  const COLOURS = ['ground', 'ink', 'faint', 'rule', 'heat', 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7'];

  // Saving: the table as CSV, the drawing as SVG with its legend and the colours of the page.
  const csv = figure => {
    const cell = c => { const t = c.textContent; return /[",\n]/.test(t) ? '"' + t.replace(/"/g, '""') + '"' : t; };
    return [...figure.querySelectorAll('tr')].map(r => [...r.children].map(cell).join(',')).join('\n') + '\n';
  };
  const drawing = figure => {
    const svg = figure.querySelector('.drawing > .wide').cloneNode(true);
    svg.querySelectorAll('.guide').forEach(guide => guide.remove());
    const [x, y, width] = svg.getAttribute('viewBox').split(' ');
    svg.setAttribute('viewBox', [x, y, width, svg.dataset.full].join(' '));
    svg.removeAttribute('class');
    const root = getComputedStyle(document.documentElement);
    const style = document.createElementNS(SVG, 'style');
    const values = COLOURS.map(name => '--' + name + ':' + root.getPropertyValue('--' + name));
    style.textContent = 'svg{background:' + root.getPropertyValue('--ground') + ';' + values.join(';') + '}'
      + document.getElementById('plots').textContent;
    svg.prepend(style);
    return new XMLSerializer().serializeToString(svg);
  };
  document.addEventListener('click', event => {
    const kind = event.target.dataset && event.target.dataset.save;
    if (!kind) return;
    const figure = event.target.closest('figure');
    const [text, type] = kind === 'csv' ? [csv(figure), 'text/csv'] : [drawing(figure), 'image/svg+xml'];
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = figure.dataset.name + '.' + kind;
    link.click();
    URL.revokeObjectURL(link.href);
  });

  // Hovering over an entry of a legend picks out its series.
  const pick = (event, on) => {
    const entry = event.target.closest && event.target.closest('ul.legend li');
    if (!entry) return;
    const figure = entry.closest('figure');
    figure.classList.toggle('picked', on);
    figure.querySelectorAll('.drawing g[data-i="' + entry.dataset.i + '"]').forEach(g => g.classList.toggle('pick', on));
  };
  document.addEventListener('pointerover', event => pick(event, true));
  document.addEventListener('pointerout', event => pick(event, false));

  // Values under the pointer, read from the figure's table.
  const tables = new WeakMap();
  const table = figure => {
    if (!tables.has(figure)) {
      const rows = [...figure.querySelectorAll('table.numbers tr')].map(r => [...r.children].map(c => c.textContent));
      tables.set(figure, { head: rows[0], rows: rows.slice(1) });
    }
    return tables.get(figure);
  };
  const number = text => parseFloat(text);
  const axis = text => {
    const [low, high, from, to, log] = text.split(' ').map(Number);
    return value => low + ((log ? Math.log10(value) : value) - from) / (to - from) * (high - low);
  };
  const least = (items, by) => items.reduce((best, item) => by(item) < by(best) ? item : best, items[0]);
  // A colour as the legend has it.
  const colour = (figure, index) => {
    const mark = figure.querySelector('ul.legend li[data-i="' + index + '"] [class*=" c"]');
    return mark ? 'var(--' + mark.getAttribute('class').match(/c\d/)[0] + ')' : '';
  };

  // Each returns the lines of the tip, [colour, name, value, near], and where the guide is.
  const found = {
    curves(figure, svg, px, py) {
      const { head, rows } = table(figure), x = axis(svg.dataset.x), y = axis(svg.dataset.y);
      const columns = head.slice(1).map((name, i) => {
        const known = rows.filter(row => Number.isFinite(y(number(row[i + 1]))));
        if (!known.length) return null;
        const row = least(known, row => Math.abs(x(Number(row[0])) - px));
        return { i, name, row, far: Math.abs(x(Number(row[0])) - px), gap: Math.abs(y(number(row[i + 1])) - py) };
      }).filter(Boolean);
      if (!columns.length) return null;
      const closest = least(columns, c => c.far), at = closest.row[0], near = least(columns, c => c.gap);
      // Curves that end far from here have no value here.
      const here = columns.filter(c => c.far <= closest.far + 24);
      const shown = here.sort((a, b) => a.gap - b.gap).slice(0, 12).sort((a, b) => b.row[b.i + 1] - a.row[a.i + 1]);
      const lines = shown.map(c => [colour(figure, c.i), c.name, c.row[c.i + 1], here.length > 1 && c === near]);
      const more = here.length - shown.length;
      if (more > 0) lines.push(['', 'and ' + more + ' more in the table', '', false]);
      return { lines: [['', head[0], at, false], ...lines], x: x(Number(at)) };
    },
    points(figure, svg, px, py) {
      const { head, rows } = table(figure), x = axis(svg.dataset.x), y = axis(svg.dataset.y);
      const gap = row => Math.hypot(x(Number(row[1])) - px, y(number(row[2])) - py);
      const known = rows.filter(row => Number.isFinite(gap(row)));
      if (!known.length) return null;
      const row = least(known, gap), names = [...figure.querySelectorAll('ul.legend li')].map(li => li.title);
      const lines = [[colour(figure, names.indexOf(row[0])), row[0], '', true], ['', head[1], row[1]], ['', head[2], row[2]]];
      return { lines, x: x(Number(row[1])), y: y(number(row[2])) };
    },
    cells(figure, svg, px, py) {
      const { head, rows } = table(figure), [left, right, top, bottom] = svg.dataset.edges.split(' ').map(Number);
      const column = Math.floor((px - left) / (right - left) * rows.length);
      const row = Math.floor((py - top) / (bottom - top) * (head.length - 1));
      if (!(column >= 0 && column < rows.length && row >= 0 && row < head.length - 1)) return null;
      return { lines: [['', head[0], rows[column][0]], ['', head[row + 1], rows[column][row + 1] || '–', true]] };
    },
    rows(figure, svg, px, py) {
      const { head, rows } = table(figure), [top, bottom] = svg.dataset.edges.split(' ').map(Number);
      const row = rows[Math.floor((py - top) / (bottom - top) * rows.length)];
      if (!row) return null;
      return { lines: [['', row[0], '', true], ...head.slice(1).map((name, i) => ['', name, row[i + 1]])] };
    },
  };

  const hide = figure => figure.querySelectorAll('.tip, .guide').forEach(element => element.remove());
  const show = event => {
    const svg = event.target.closest && event.target.closest('.drawing > svg');
    document.querySelectorAll('figure.hovered').forEach(figure => {
      if (!svg || !figure.contains(svg)) { hide(figure); figure.classList.remove('hovered'); }
    });
    if (!svg) return;
    const figure = svg.closest('figure'), box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const at = found[svg.dataset.hover](figure, svg, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
    hide(figure);
    if (!at) return;
    figure.classList.add('hovered');
    if (at.x !== undefined) {
      const guide = document.createElementNS(SVG, at.y === undefined ? 'line' : 'circle');
      const places = at.y === undefined
        ? { x1: at.x, x2: at.x, y1: svg.dataset.y.split(' ')[1], y2: svg.dataset.y.split(' ')[0] }
        : { cx: at.x, cy: at.y, r: 8 };
      Object.entries(places).forEach(([name, value]) => guide.setAttribute(name, value));
      guide.setAttribute('class', 'guide');
      svg.append(guide);
    }
    const tip = document.createElement('div');
    tip.className = 'tip';
    for (const [swatch, name, value, near] of at.lines) {
      const line = tip.appendChild(document.createElement('div'));
      if (near) line.className = 'near';
      if (swatch) line.appendChild(document.createElement('i')).style.background = swatch;
      for (const text of [name, value]) line.appendChild(document.createElement('span')).textContent = text;
    }
    const frame = svg.parentElement;
    frame.append(tip);
    // Beside the pointer, on the side with more room.
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const left = x > box.width / 2 ? x - tip.offsetWidth - 16 : x + 16;
    tip.style.left = Math.max(0, Math.min(left, box.width - tip.offsetWidth)) + 'px';
    // Rows are low: what is under the pointer stays visible above the tip.
    const top = svg.dataset.edges ? y + 14 : Math.min(y - tip.offsetHeight / 2, box.height - tip.offsetHeight);
    tip.style.top = Math.max(0, top) + 'px';
  };
  document.addEventListener('pointermove', show);
  document.addEventListener('pointerdown', show);
}
