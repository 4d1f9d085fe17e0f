// What the vendors' Node SDKs make of a stream; started by clients.py.
//
// One argument: {"client", "baseURL", "apiKey", "models"}; one line of JSON a model:
// the text that was handed out, the last word, and the error that was raised.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const job = JSON.parse(process.argv[2]);
const require = createRequire(`${process.env.NODE_MODULES}/.`);
const load = async (name) =>
  (await import(pathToFileURL(require.resolve(name)))).default;
const said = [{ role: "user", content: "say something" }];
const options = { baseURL: job.baseURL, apiKey: job.apiKey, maxRetries: 0 };

const clients = {
  async responses(model, outcome) {
    const sdk = new (await load("openai"))(options);
    const stream = await sdk.responses.create({
      model,
      input: "say something",
      stream: true,
    });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") outcome.text += event.delta;
      if (event.type === "response.completed") outcome.terminal = event.type;
    }
  },
  async responsesHelper(model, outcome) {
    const sdk = new (await load("openai"))(options);
    const stream = sdk.responses.stream({ model, input: "say something" });
    const response = await stream.finalResponse();
    outcome.text = response.output_text;
    outcome.terminal = response.status;
  },
  async responsesWebSocket(model, outcome) {
    const sdk = new (await load("openai"))(options);
    const { ResponsesWS } = await import(
      pathToFileURL(require.resolve("openai/resources/responses/ws"))
    );
    const socket = new ResponsesWS(sdk);
    await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("event", (event) => {
        if (event.type === "response.output_text.delta") outcome.text += event.delta;
        if (event.type !== "response.completed") return;
        outcome.terminal = event.type;
        resolve();
      });
      socket.send({ type: "response.create", model, input: "say something" });
    }).finally(() => socket.close());
  },
  async chat(model, outcome) {
    const sdk = new (await load("openai"))(options);
    const stream = await sdk.chat.completions.create({
      model,
      messages: said,
      stream: true,
    });
    for await (const chunk of stream)
      for (const choice of chunk.choices) {
        outcome.text += choice.delta.content ?? "";
        outcome.terminal = choice.finish_reason ?? outcome.terminal;
      }
  },
  async messages(model, outcome) {
    const sdk = new (await load("@anthropic-ai/sdk"))(options);
    const stream = await sdk.messages.create({
      model,
      max_tokens: 100,
      messages: said,
      stream: true,
    });
    for await (const event of stream) {
      if (event.type === "content_block_delta") outcome.text += event.delta.text ?? "";
      if (event.type === "message_stop") outcome.terminal = event.type;
    }
  },
  async messagesHelper(model, outcome) {
    const sdk = new (await load("@anthropic-ai/sdk"))(options);
    const stream = sdk.messages.stream({ model, max_tokens: 100, messages: said });
    const message = await stream.finalMessage();
    outcome.text = message.content.map((block) => block.text ?? "").join("");
    outcome.terminal = message.stop_reason;
  },
};

for (const model of job.models) {
  const outcome = { model, text: "", terminal: null, error: null };
  try {
    await clients[job.client](model, outcome);
  } catch (error) {
    const { status, code } = error;
    const name = error.constructor.name;
    outcome.error = { name, message: error.message, status, code };
  }
  console.log(JSON.stringify(outcome));
}
