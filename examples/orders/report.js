// March's revenue by region, with the orders that stand out looked up one by one.
const MONTH = "2025-03";
const PAUSE = 500; // ms between two pages: others ask the same database

class Tally {
  constructor() {
    this.count = 0;
    this.sum = 0;
    this.squares = 0;
  }
  add(value) {
    this.count += 1;
    this.sum += value;
    this.squares += value * value;
    return this;
  }
  get mean() {
    return this.count ? this.sum / this.count : 0;
  }
  get deviation() {
    return this.count ? Math.sqrt(Math.max(0, this.squares / this.count - this.mean ** 2)) : 0;
  }
}

async function* allOrders(filter) {
  let after = 0;
  while (true) {
    const { orders, next } = await tools.orders.search({ ...filter, after, limit: 100 });
    yield* orders;
    if (next === null) return;
    after = next;
    await sleep(PAUSE);
  }
}

const isDate = (text) => {
  const [year, month, day] = (text ?? "").split("-").map(Number);
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
};

const whatIsWrong = ({ total, placed_on: placedOn }) => {
  if (typeof total !== "number") return "no total";
  if (total < 0) return "negative total";
  if (!isDate(placedOn)) return "no such day";
  return null;
};

const money = (value) => value.toFixed(2).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

function table(head, rows) {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => String(row[i]).length)));
  const line = (cells) => cells.map((cell, i) => (i ? String(cell).padStart(widths[i]) : String(cell).padEnd(widths[i]))).join("  ");
  return [line(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}

// 1. Read the month and sort out what can't be counted.
const good = [];
const spoilt = {};
for await (const order of allOrders({ month: MONTH })) {
  if (order.status === "cancelled") continue;
  const fault = whatIsWrong(order);
  if (fault) (spoilt[fault] ??= []).push(order.id);
  else good.push(order);
}

// 2. Revenue by region.
const regions = new Map();
const overall = new Tally();
for (const { region, total } of good) {
  const name = region ?? "unknown";
  if (!regions.has(name)) regions.set(name, new Tally());
  regions.get(name).add(total);
  overall.add(total);
}
const ranked = [...regions].sort(([, a], [, b]) => b.sum - a.sum);
console.log(`Revenue in ${MONTH}`);
console.log(table(["region", "orders", "revenue", "mean"], ranked.map(([name, t]) => [name, t.count, money(t.sum), money(t.mean)])));

// 3. Whatever lies far out is looked at, all at once; one that can't be read doesn't spoil the rest.
const limit = overall.mean + 3 * overall.deviation;
const outliers = good.filter(({ total }) => total > limit).sort((a, b) => b.total - a.total).slice(0, 20);
const looked = await Promise.all(
  outliers.map(async ({ id, total }) => {
    try {
      const { customer, lines } = await tools.orders.get({ id });
      const [biggest] = lines.sort((a, b) => b.quantity * b.price - a.quantity * a.price);
      return { id, total, customer, biggest: `${biggest.quantity} × ${biggest.product}` };
    } catch (error) {
      return { id, total, failed: error.code };
    }
  }),
);
const failed = looked.filter((entry) => entry.failed);
console.log(`\nAbove ${money(limit)}`);
console.log(table(["order", "total", "customer", "mostly"], looked.map((o) => [o.id, money(o.total), o.customer ?? o.failed, o.biggest ?? ""])));

// 4. Leave a note where somebody has to look.
for (const { id, failed: code } of failed.slice(0, 1)) {
  await tools.notes.add({ order_id: id, text: `${MONTH} report: ${code}, please check the customer.` });
}

return {
  month: MONTH,
  orders: good.length,
  revenue: Number(overall.sum.toFixed(2)),
  regions: Object.fromEntries(ranked.map(([name, { sum }]) => [name, Number(sum.toFixed(2))])),
  spoilt: Object.fromEntries(Object.entries(spoilt).map(([fault, ids]) => [fault, ids.length])),
  outliers: looked.length,
  unreadable: failed.map(({ id }) => id),
};
