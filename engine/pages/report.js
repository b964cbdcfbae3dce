// Tables sort by the column whose heading is pressed: numbers by value, the rest as words, empty cells last.
const key = cell => cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent;
const order = (a, b) =>
  (a === '') - (b === '') ||
  (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', {numeric: true}));
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const rows = [...body.rows].map(row => [key(row.cells[column]), row]);
    rows.sort(([a], [b]) => a === '' || b === '' || !down ? order(a, b) : order(b, a));
    body.append(...rows.map(([, row]) => row));
  }));
}
for (const field of document.querySelectorAll('input.filter')) {
  const rows = [...field.nextElementSibling.querySelectorAll('tbody tr')];
  field.addEventListener('input', () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}
