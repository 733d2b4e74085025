"""Why executions and their components fail: every reason that what ships gives, with its cause in words.

They are texts in events, and not `WorkflowErrorReason`, which is about calls: other people's components have their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from blobhub_server.workflow.interpreter.interpreter import MAX_TOKENS
from blobhub_server.workflow.interpreter.session_values import MAX_STEP_BYTES
from blobhub_server.workflow.rules.execution import DEFAULT_STEP_LIMIT
from blobhub_server.workflow.rules.message import MAX_BYTES

OF_EXECUTIONS: Mapping[str, str] = {
    "JOIN_STARVED": "A join waits for tokens that never come; the message names the connections.",
    "STEP_LIMIT": f"It entered more components than it may, {DEFAULT_STEP_LIMIT:,} unless its start says otherwise.",
    "TOKEN_LIMIT": f"Control was passed on so often that there are more than {MAX_TOKENS:,} tokens.",
    "LOG_LIMIT": "Its log, or those of its organization together, have grown beyond what there may be.",
    "STATE_LIMIT": "The values that it works on, which its open steps and outputs hold, take more than 64 MiB of memory, "
    "or those of all executions of its organization together more than a server has for them.",
    "TIMEOUT": "It, or one attempt at a component, took longer than it may.",
    "UNHANDLED_FAILURE": "A component ended with the route `failure`, which leads nowhere.",
    "POISONED": "It was resumed three times in a row, and each time its server went down before anything was recorded.",
    "INTERNAL": "Something went wrong that is not the definition's fault; the server's log has the cause.",
}
"""Of executions as a whole. One whose component failed has the component's reason."""

OF_COMPONENTS: Mapping[str, str] = {
    "MISSING_INPUT": "A required data input is absent.",
    "INVALID_INPUT": "A data input is not what the component takes.",
    "INVALID_OUTPUT": "An output is not JSON, or beyond the bounds of a value.",
    "OPERATION_TYPE": "The operation of a `data.value` cannot be applied to the value that is there, or that is written.",
    "ROUTE_LEADS_NOWHERE": "It took a route that no connection carries; the message names those there are.",
    "RESULT_LIMIT": "The results of a `flow.each` are more than a value may be; with `results` `none` they are not kept.",
    "ITEM_CANCELLED": "An item of a `flow.each` was given up, because too many others have failed or all took too long.",
    "INTERRUPTED": "The server went down under it. It is tried again, however often, unless its policy forbids this reason.",
    "COMPONENT_ERROR": "It failed and gave no reason of its own. Those of `flow.fail` are the definition's.",
    "EXPRESSION_SYNTAX": "An expression that came through a connection is none.",
    "EXPRESSION_NAME": "A name in an expression has no value; the message says which have.",
    "EXPRESSION_ABSENT": "A key or an item that an expression reads is not there.",
    "EXPRESSION_TYPE": "A value is not of a type that is taken; a `when` is neither `True` nor `False`.",
    "EXPRESSION_FUEL": "An expression takes more work than it may.",
    "EXPRESSION_SIZE": "An expression makes a number, a text or a result beyond the bounds.",
    "EXPRESSION_ERROR": "Whatever else Python would raise for an expression: a division by zero, a text that is no number.",
    "SCRIPT_SYNTAX": "A script is not Python, or uses what the sandbox does not have of it.",
    "SCRIPT_ERROR": "A script raised an error, at the line that is told.",
    "SCRIPT_TIMEOUT": "A script ran longer than it may.",
    "SCRIPT_MEMORY": "A script took more memory than it may.",
    "SCRIPT_RECURSION": "A script called functions within functions too deep.",
    "SCRIPT_OUTPUT": "An output of a script, or what it emits, is not JSON or too large.",
    "SESSION_READ_LIMIT": f"The session objects that a step reads, or changes in place, have more than "
    f"{MAX_STEP_BYTES >> 20} MiB together as JSON.",
    "STATE_LIMIT": "What a script reads of session objects when it is run takes more memory than a server has, beside what "
    "else all executions of its organization work on.",
    "SESSION_CONFLICT": "Others changed the session objects of a script each time before it had ended, 100 times.",
    "SCRIPT_CRASHED": "The process that ran a script ended under it.",
    "CAPABILITY_MISSING": "It needs something of a blob type that is not installed any more.",
}
"""Of components, which go on by their route `failure` where a connection carries it."""

OF_TASKS: Mapping[str, str] = {
    "LEASES_LOST": "11 leases of the task ran out: whoever does it dies, say, or cannot be reached. It may pass.",
    "TASK_LIMIT": "As many tasks of the organization wait for workers as may (`workflow.open_tasks`). It may pass.",
}
"""Of `task.call`, beside those of all components and those that workers give."""

OF_CHILDREN: Mapping[str, str] = {
    "CHILD_STOPPED": "The execution that the step has started was stopped by somebody else.",
    "CHILD_DELETED": "The blob of the execution that the step has started was deleted before its end.",
    "CHILD_RESULT_LIMIT": f"Results of more than {MAX_BYTES >> 20} MiB together came at the same time.",
    "PERMISSION_DENIED": "Whoever started the execution may not execute in that workflow, or may not act any more, or there "
    "is none.",
    "NOT_FOUND": "There is no such blob, revision or definition.",
    "RENAMED": "The blob or its organization has another alias now, which the message says.",
    "AMBIGUOUS_REFERENCE": "`@draft` of a blob with several drafts.",
    "WRONG_BLOB_TYPE": "The blob holds no workflow.",
    "DEFINITION_NOT_RUNNABLE": "The definition has problems that keep it from running.",
    "SESSION_NOT_OPEN": "The session is being closed.",
    "LIMIT_EXCEEDED": "One of the limits `workflow.execution_depth`, `workflow.children_per_execution`, "
    "`workflow.executions_per_session`, `workflow.sessions_per_blob` and `workflow.log_bytes` is reached.",
    "CONTENT_LOST": "The stored bytes of the definition are missing or corrupt.",
}
"""Of `workflow.execute`, beside those of all components and of whatever has failed in the other execution."""

OF_MODELS: Mapping[str, str] = {
    "PERMISSION_DENIED": "Whoever started the execution may not see the model, or may not act any more, or there is none.",
    "NOT_FOUND": "There is no such blob or revision, or no model in it.",
    "RENAMED": "The blob or its organization has another alias now, which the message says.",
    "AMBIGUOUS_REFERENCE": "`@draft` of a blob with several drafts.",
    "WRONG_BLOB_TYPE": "The blob holds no model.",
    "INVALID_TENSOR": "A tensor is not one that the model takes or gives; the message says which, and what was expected.",
    "TENSOR_NOT_SERVABLE": "The model takes or gives what JSON cannot hold, such as a sequence of maps.",
    "INFERENCE_REFUSED": "An operator of the model refuses these inputs.",
    "INFERENCE_EXHAUSTED": "The answer takes more time or memory than it may, or is larger than a value may be.",
    "INFERENCE_CRASHED": "The process of the model ended while it computed the answer.",
    "INFERENCE_UNLOADABLE": "The model does not load, although it did when it was processed.",
    "INFERENCE_RESTING": "The model has ended its process, and rests. It may pass.",
    "INFERENCE_QUEUE_FULL": "Too many requests wait for the model. It may pass.",
    "INFERENCE_MEMORY_FULL": "The models that are answering leave no memory to load this one. It may pass.",
    "EXTRA_MISSING": "The server was installed without the packages that models need.",
    "CONTENT_LOST": "The stored bytes of the model are missing or corrupt.",
}
"""Of `model.infer`, beside those of all components. Those that may pass are tried again where a policy says so."""

OF_HTTP: Mapping[str, str] = {
    "HTTP_STATUS": "The answer's status is not accepted. 408, 425, 429 and 500 and more may pass.",
    "HTTP_TIMEOUT": "The whole answer did not come in time. It may pass.",
    "HTTP_UNREACHABLE": "The name has no address, nothing accepts the connection, its certificate is not for the name, or "
    "it broke off. It may pass.",
    "HTTP_REFUSED_TARGET": "The URL, or one that it redirects to, leads to an address that is not public and that "
    "`BLOBHUB_HTTP_ALLOW` does not name; or the credential may not go there.",
    "HTTP_INVALID_URL": "The URL, or one that it redirects to, is none that can be asked.",
    "HTTP_TOO_LARGE": "The answer is longer than it may be, or than a value may be.",
    "HTTP_TOO_MANY_REDIRECTS": "It redirects further than it may.",
    "HTTP_BAD_RESPONSE": "The compressed body of the answer is broken or cut off.",
    "NOT_FOUND": "Neither the blob nor its organization has a credential of that alias.",
    "INVALID_CREDENTIAL": "The credential's body has not what it is to be sent as.",
    "PERMISSION_DENIED": "Whoever started the execution may not use the workflow's credentials any more.",
    "CREDENTIAL_UNREADABLE": "The credential has changed since it was stored.",
    "MASTER_KEY_MISSING": "The server was started without the master key that the credential is sealed under.",
}
"""Of `http.request` and `genai.chat.openai`, beside those of all components. What may pass is tried again under a policy."""

OF_CHATS: Mapping[str, str] = {
    "CHAT_INCOMPLETE": "The stream of the answer ended before the answer did, or said an error. It may pass.",
    "CHAT_BAD_RESPONSE": "The answer is no chat completion, or its text is longer than a value may be.",
}
"""Of `genai.chat.openai`, beside those of `http.request`."""
