// Shows openapi.json without fetching anything else.

const make = (name, text, parent) => {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
};

function table(rows, parent) {
  if (!rows.length) return;
  const body = make("table", "", parent);
  for (const cells of rows) {
    const row = make("tr", "", body);
    cells.forEach((cell) => make("td", cell, row));
  }
}

const api = await (await fetch("openapi.json")).json();
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema ?? {});
const kind = (schema) => schema.type ?? schema.anyOf?.map((one) => resolve(one).type ?? "object").join(" or ") ?? "object";

document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const card = make("article", "", document.getElementById("routes"));
    make("h2", `${method.toUpperCase()} ${path}`, card);
    make("p", route.summary ?? "", card);
    for (const [type, content] of Object.entries(route.requestBody?.content ?? {})) {
      make("p", `Body: ${type}`, card);
      const fields = Object.entries(resolve(content.schema).properties ?? {});
      table(fields.map(([name, field]) => [name, kind(resolve(field)), field.description ?? ""]), card);
    }
    make("p", "Answers:", card);
    table(Object.entries(route.responses).map(([code, answer]) => [code, answer.description]), card);
  }
}
