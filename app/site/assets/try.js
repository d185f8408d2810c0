// No validator and no link to the licence's text, which are other hosts'; the key is forgotten with the page, not kept
// in the browser. The extensions are the codes of each refusal.
const none = () => null;
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  plugins: [() => ({ components: { License: none, OAS31License: none } })],
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
  showExtensions: true,
  defaultModelsExpandDepth: 0,
  persistAuthorization: false
});
