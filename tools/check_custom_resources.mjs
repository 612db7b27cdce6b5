// Checks Kubernetes custom resources, a JSON array on stdin, against their published schemas.
//
// Two ways, as each sees what the other does not: the packages' validators know patterns, enumerations and required fields,
// and their TypeScript types know which fields there are, so that a misspelt one is found. Prints each finding; exit code 1
// for findings, and for a kind that no package knows.

import ts from "typescript";

const PACKAGES = {
  "cert-manager.io": "@kubernetes-models/cert-manager",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
  "keda.sh": "@kubernetes-models/keda",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

let input = "";
for await (const part of process.stdin) input += part;
const resources = JSON.parse(input);
const findings = [...(await wrongValues(resources)), ...unknownFields(resources)];
findings.forEach((finding) => console.error(finding));
console.log(`${resources.length} custom resources, ${findings.length} findings`);
process.exit(findings.length > 0 ? 1 : 0);

function module(resource) {
  const [group, version] = resource.apiVersion.split("/");
  return PACKAGES[group] && `${PACKAGES[group]}/${group}/${version}/${resource.kind}`;
}

function label(resource) {
  return `${resource.kind} ${resource.metadata.name}`;
}

async function wrongValues(resources) {
  const findings = [];
  for (const resource of resources) {
    try {
      const models = await import(module(resource));
      new models[resource.kind](resource).validate();
    } catch (error) {
      findings.push(`${label(resource)}: ${error.message}`);
    }
  }
  return findings;
}

function unknownFields(resources) {
  // Each resource is one line of a program that only compiles when its type has every field.
  const lines = resources.map(
    (resource, index) =>
      `import { I${resource.kind} as T${index} } from ${JSON.stringify(module(resource))}; ` +
      `export const resource${index}: T${index} = ${JSON.stringify(resource)};`,
  );
  const options = {
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    noEmit: true,
    skipLibCheck: true,
    strict: true,
    target: ts.ScriptTarget.ESNext,
    types: [],
  };
  const path = `${process.cwd()}/custom-resources.ts`;
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile, readFile } = host;
  const text = lines.join("\n");
  host.fileExists = (name) => name === path || fileExists(name);
  host.readFile = (name) => (name === path ? text : readFile(name));
  host.getSourceFile = (name, ...rest) =>
    name === path ? ts.createSourceFile(name, text, options.target) : getSourceFile(name, ...rest);
  return ts.getPreEmitDiagnostics(ts.createProgram([path], options, host)).map((diagnostic) => {
    const message = ts.flattenDiagnosticMessageText(diagnostic.messageText, " ");
    if (diagnostic.file?.fileName !== path) return message;
    const line = diagnostic.file.getLineAndCharacterOfPosition(diagnostic.start).line;
    return `${label(resources[line])}: ${message}`;
  });
}
