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
  async responses(model, told) {
    const sdk = new (await load("openai"))(options);
    const stream = await sdk.responses.create({
      model,
      input: "say something",
      stream: true,
    });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") told.text += event.delta;
      if (event.type === "response.completed") told.terminal = event.type;
    }
  },
  async responsesHelper(model, told) {
    const sdk = new (await load("openai"))(options);
    const stream = sdk.responses.stream({ model, input: "say something" });
    const response = await stream.finalResponse();
    told.text = response.output_text;
    told.terminal = response.status;
  },
  async chat(model, told) {
    const sdk = new (await load("openai"))(options);
    const stream = await sdk.chat.completions.create({
      model,
      messages: said,
      stream: true,
    });
    for await (const chunk of stream)
      for (const choice of chunk.choices) {
        told.text += choice.delta.content ?? "";
        told.terminal = choice.finish_reason ?? told.terminal;
      }
  },
  async messages(model, told) {
    const sdk = new (await load("@anthropic-ai/sdk"))(options);
    const stream = await sdk.messages.create({
      model,
      max_tokens: 100,
      messages: said,
      stream: true,
    });
    for await (const event of stream) {
      if (event.type === "content_block_delta") told.text += event.delta.text ?? "";
      if (event.type === "message_stop") told.terminal = event.type;
    }
  },
  async messagesHelper(model, told) {
    const sdk = new (await load("@anthropic-ai/sdk"))(options);
    const stream = sdk.messages.stream({ model, max_tokens: 100, messages: said });
    const message = await stream.finalMessage();
    told.text = message.content.map((block) => block.text ?? "").join("");
    told.terminal = message.stop_reason;
  },
};

for (const model of job.models) {
  const told = { model, text: "", terminal: null, error: null };
  try {
    await clients[job.client](model, told);
  } catch (error) {
    const { status, code } = error;
    const name = error.constructor.name;
    told.error = { name, message: error.message, status, code };
  }
  console.log(JSON.stringify(told));
}
