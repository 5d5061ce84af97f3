// Muster in opencode: what its daemon has for a session comes in with a prompt, after a tool, at the
// end of a turn, and while it rests. Written by `muster install opencode`, taken out by `muster uninstall opencode`.
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"

const HOOK = "@HOOK@"
const WAIT = "@WAIT@"
const WOKEN = 2
// What Muster takes for a prompt that no person gave.
const NO_PERSON = "<task-notification>"
const LIMIT_MS = 2000

// What the hook says to an event; "" where there is no daemon, or nothing to say.
const ask = (cwd, name, session, more) =>
  new Promise((resolve) => {
    if (!existsSync(HOOK[HOOK.length - 1])) return resolve("")
    const said = []
    const hook = spawn(HOOK[0], HOOK.slice(1), { cwd, stdio: ["pipe", "pipe", "ignore"] })
    const late = setTimeout(() => hook.kill(), LIMIT_MS)
    const end = () => {
      clearTimeout(late)
      resolve(Buffer.concat(said).toString("utf8"))
    }
    hook.on("error", end)
    hook.on("close", end)
    hook.stdout.on("data", (each) => said.push(each))
    hook.stdin.on("error", () => {})
    hook.stdin.end(JSON.stringify({ hook_event_name: name, session_id: session, cwd, ...more }))
  })

// Beside a session that rests one waits, for as long as opencode runs, and says what wakes it. The
// next one takes its place.
const wait = (cwd, session, wake) => {
  if (!existsSync(WAIT)) return
  const said = []
  const stdio = ["pipe", "ignore", "pipe"]
  const waiter = spawn(HOOK[0], [...HOOK.slice(1, -1), WAIT], { cwd, stdio })
  waiter.on("error", () => {})
  waiter.on("close", (code) => code === WOKEN && wake(Buffer.concat(said).toString("utf8")))
  waiter.stderr.on("data", (each) => said.push(each))
  waiter.stdin.on("error", () => {})
  waiter.stdin.end(JSON.stringify({ hook_event_name: "Stop", session_id: session, cwd }))
  waiter.stderr.unref?.()
  waiter.unref()
}

export const Muster = async ({ client, directory }) => {
  // Sessions of agents below one: what they hear is for the one above.
  const below = new Set()
  return {
    "chat.message": async (input, output) => {
      if (below.has(input.sessionID)) return
      const own = output.parts.length > 0 && output.parts.every((each) => each.synthetic)
      const prompt = own ? NO_PERSON : ""
      const text = await ask(directory, "UserPromptSubmit", input.sessionID, { prompt })
      if (!text) return
      const { id: messageID, sessionID } = output.message
      const id = "prt_" + messageID.replace(/^msg_/, "") + "muster"
      output.parts.push({ id, sessionID, messageID, type: "text", text, synthetic: true })
    },
    "tool.execute.after": async (input, output) => {
      if (below.has(input.sessionID)) return
      const told = { tool_name: input.tool, tool_input: input.args ?? {} }
      const text = await ask(directory, "PostToolUse", input.sessionID, told)
      if (text && typeof output.output === "string") output.output += "\n" + text
    },
    event: async ({ event }) => {
      const told = event.properties ?? {}
      if (event.type === "session.created" && told.info?.parentID) below.add(told.info.id)
      if (event.type === "session.deleted" && !below.delete(told.info?.id))
        await ask(directory, "SessionEnd", told.info?.id, {})
      if (event.type !== "session.idle" || below.has(told.sessionID)) return
      const wake = async (text) => {
        const body = { parts: [{ type: "text", text, synthetic: true }] }
        await client.session.promptAsync({ path: { id: told.sessionID }, body })
      }
      const text = await ask(directory, "Stop", told.sessionID, {})
      if (text) await wake(text)
      else wait(directory, told.sessionID, (text) => wake(text).catch(() => {}))
    },
  }
}
