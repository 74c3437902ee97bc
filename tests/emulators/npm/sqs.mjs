// An SQS for tests: fauxqs 2.4.1 on a loopback port, silent, and repaired where it
// is not like SQS in ways that matter here. Needs Node.js 22.5 or newer.
//
//   node sqs.mjs DIRECTORY-OF-NODE_MODULES PORT
import { AsyncLocalStorage } from "node:async_hooks";
import { randomUUID } from "node:crypto";
import { pathToFileURL } from "node:url";

const [modules, port] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(`${modules}/fauxqs/dist/${file}`).href);
const { buildApp } = await load("app.js");
const { SqsStore, SqsQueue } = await load("sqs/sqsStore.js");
const { INVALID_MESSAGE_BODY_CHAR } = await load("sqs/sqsTypes.js");

// SQS takes every character beyond U+FFFF. The expression of fauxqs lacks the u
// flag, so it sees their two halves, and refuses every emoji.
const forbidden = /[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]|\p{Surrogate}/u;
INVALID_MESSAGE_BODY_CHAR.test = (text) => forbidden.test(text);

// What is known of the request being served.
const requests = new AsyncLocalStorage();

// A long poll whose client has hung up must not take a message: nobody would see
// it before its visibility timeout. So the waiter is taken out of the queue when
// the connection closes, and whatever runs later for that request gets nothing.
const { waitForMessages, dequeue, enqueue } = SqsQueue.prototype;

SqsQueue.prototype.waitForMessages = function (seconds) {
  const request = requests.getStore();
  if (request?.gone) return Promise.resolve();
  const earlier = new Set(this.pollWaiters);
  const waiting = waitForMessages.call(this, seconds);
  const waiter = this.pollWaiters.find((w) => !earlier.has(w));
  if (!request || !waiter) return waiting;
  request.hangUp = () => {
    const at = this.pollWaiters.indexOf(waiter);
    if (at < 0) return;
    this.pollWaiters.splice(at, 1);
    clearTimeout(waiter.timer);
    waiter.resolve();
  };
  return waiting;
};

// A message that moves to its dead-letter queue remembers where it came from: a
// move task without a destination puts each back there.
let redriving = null;

SqsQueue.prototype.dequeue = function (...args) {
  if (requests.getStore()?.gone) return [];
  redriving = this;
  try {
    return dequeue.apply(this, args);
  } finally {
    redriving = null;
  }
};

SqsQueue.prototype.enqueue = function (message) {
  if (redriving && redriving !== this) message.cameFrom = redriving;
  return enqueue.call(this, message);
};

const sqsStore = new SqsStore();
sqsStore.host = ""; // queue URLs then begin with the address that was asked, not with a name to resolve
const app = buildApp({ logger: false, defaultRegion: "us-east-1", stores: { sqsStore } });

app.addHook("preHandler", (_request, reply, done) => {
  const request = { gone: false, hangUp: null };
  reply.raw.on("close", () => {
    if (reply.raw.writableFinished) return;
    request.gone = true;
    request.hangUp?.();
  });
  requests.run(request, done);
});

// fauxqs has no move tasks, by which people bring dead letters back. Ours are
// over at once.
const tasks = [];

class Refusal extends Error {
  constructor(type, message) {
    super(message);
    this.type = type;
  }
}

function redrivesTo(queue, arn) {
  try {
    return JSON.parse(queue.attributes.RedrivePolicy).deadLetterTargetArn === arn;
  } catch {
    return false; // it has no policy
  }
}

function startMoveTask({ SourceArn, DestinationArn }) {
  const missing = (name) =>
    new Refusal("ResourceNotFoundException", `The resource that you specified for the ${name} parameter doesn't exist.`);
  const dead = sqsStore.getQueueByArn(SourceArn);
  if (!dead) throw missing("SourceArn");
  const sources = [...sqsStore.allQueues()].filter((queue) => redrivesTo(queue, SourceArn));
  if (sources.length === 0) {
    throw new Refusal("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.");
  }
  const destination = DestinationArn && sqsStore.getQueueByArn(DestinationArn);
  if (DestinationArn && !destination) throw missing("DestinationArn");

  dead.processTimers(); // what is visible again moves too
  const messages = dead.messages;
  dead.messages = [];
  for (const message of messages) {
    message.approximateReceiveCount = 0;
    message.approximateFirstReceiveTimestamp = undefined;
    (destination || message.cameFrom || sources[0]).enqueue(message);
  }
  const task = {
    TaskHandle: randomUUID(),
    SourceArn,
    ...(DestinationArn ? { DestinationArn } : {}),
    Status: "COMPLETED",
    ApproximateNumberOfMessagesMoved: messages.length,
    ApproximateNumberOfMessagesToMove: messages.length,
    StartedTimestamp: Date.now(),
  };
  tasks.unshift(task);
  return { TaskHandle: task.TaskHandle };
}

const actions = {
  "AmazonSQS.StartMessageMoveTask": startMoveTask,
  "AmazonSQS.ListMessageMoveTasks": ({ SourceArn, MaxResults }) => ({
    Results: tasks.filter((task) => task.SourceArn === SourceArn).slice(0, MaxResults ?? 1),
  }),
};

app.addHook("preHandler", async (request, reply) => {
  const action = actions[request.headers["x-amz-target"]];
  if (!action) return;
  reply.header("content-type", "application/x-amz-json-1.0");
  try {
    return reply.send(action(request.body));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    reply.status(400).header("x-amzn-query-error", `${error.type};Sender`);
    return reply.send({ __type: `com.amazonaws.sqs#${error.type}`, message: error.message });
  }
});

// Stock, it would listen on every address.
await app.listen({ port: Number(port), host: "127.0.0.1" });
process.on("SIGTERM", () => process.exit(0));
