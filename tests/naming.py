"""How things are called in the contract (DESIGN §3), as rules over descriptors: each yields what breaks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from blobhub.v1 import access_pb2, alias_pb2
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

NOUNS = ("organization", "blob", "revision", "session", "execution", "definition", "user", "api_key", "credential")
"""What a request refers to by its noun, and a record by `<noun>_id`."""

STRING, MESSAGE, BOOL = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BOOL


INCLUSIVE = r"\bor (at|from|later|earlier|then|since|until|on)\b|\b(at|from|on) this\b|\binclu"
"""What says of a bound that it is among what it bounds."""


@dataclass(frozen=True)
class Contract:
    """The messages and methods of a package."""

    files: tuple[descriptor_pb2.FileDescriptorProto, ...]
    pool: descriptor_pool.DescriptorPool

    @cached_property
    def methods(self) -> list[MethodDescriptor]:
        """All methods."""
        names = [f"{file.package}.{service.name}" for file in self.files for service in file.service]
        return [method for name in names for method in self.pool.FindServiceByName(name).methods]

    @cached_property
    def messages(self) -> list[Descriptor]:
        """All messages; none is inside another."""
        names = [f"{file.package}.{message.name}" for file in self.files for message in file.message_type]
        return [self.pool.FindMessageTypeByName(name) for name in names]

    @cached_property
    def requests(self) -> list[Descriptor]:
        """The messages that only come in: requests, and what nothing but requests is made of."""
        into = _reachable([method.input_type for method in self.methods])
        out = _reachable([method.output_type for method in self.methods])
        return [message for message in self.messages if message.full_name in into - out]

    @cached_property
    def records(self) -> list[Descriptor]:
        """The messages that go out, but for the answers themselves."""
        requests = {message.full_name for message in self.requests}
        return [each for each in self.messages if each.full_name not in requests and not each.name.endswith("Response")]


def _reachable(messages: list[Descriptor]) -> set[str]:
    found: dict[str, Descriptor] = {}
    left = list(messages)
    while left:
        message = left.pop()
        if message.full_name not in found:
            found[message.full_name] = message
            left += [field.message_type for field in message.fields if field.message_type]
    return set(found)


def _fields(messages: list[Descriptor], pattern: str) -> Iterator[str]:
    for message in messages:
        for field in message.fields:
            if re.fullmatch(pattern, field.name):
                yield f"{message.name}.{field.name}"


def _comments(contract: Contract) -> Iterator[tuple[FieldDescriptor, str]]:
    """The fields of all messages, each with its comment."""
    for file in contract.files:
        texts = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for m, message in enumerate(file.message_type):
            described = contract.pool.FindMessageTypeByName(f"{file.package}.{message.name}")
            yield from ((described.fields_by_name[each.name], texts[4, m, 2, f]) for f, each in enumerate(message.field))


def _options(field: FieldDescriptor) -> descriptor_pb2.FieldOptions:
    """A field's options, with our extensions whatever pool it is of."""
    return descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())


def _rules(contract: Contract) -> Iterator[tuple[str, access_pb2.AccessRule]]:
    """The methods' access rules and the further ones in them, each with the method's name."""
    for method in contract.methods:
        rule = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString()).Extensions[access_pb2.access]
        yield from ((method.name, each) for each in (rule, *rule.also))


def _is_named_for(name: str, kind: str) -> bool:
    """Whether a field that refers to a kind of thing is named for it; a version is a revision of the blob beside it."""
    kind = "revision" if kind == "version" else kind
    return name == "parent" if "_or_" in kind else f"_{name}".endswith(f"_{kind}")


def organization_is_written_out(contract: Contract) -> Iterator[str]:
    """`organization`, and never `org`."""
    yield from _fields(contract.messages, r"(.*_)?orgs?(_.*)?")


def a_request_refers_by_the_noun(contract: Contract) -> Iterator[str]:
    """`session`, not `session_id`: what is named may be an id or a reference."""
    yield from (name for name in _fields(contract.requests, r".*_ids?") if not name.endswith(".request_id"))


def nothing_follows_the_noun_that_a_request_refers_by(contract: Contract) -> Iterator[str]:
    """`session`, not `session_ref` or `session_name`; what stands before it says which one.

    A filter such as `definition_alias`, with the form of an alias, is about all that have it, and refers to none of them.
    """
    for message in contract.requests:
        for field in message.fields:
            filters = _options(field).Extensions[validate_pb2.field].string.Extensions[alias_pb2.alias]
            if field.type == STRING and not filters and re.fullmatch(rf"(.*_)?({'|'.join(NOUNS)})s?_.+", field.name):
                yield f"{message.name}.{field.name}"


def a_checked_field_has_the_name_of_its_kind(contract: Contract) -> Iterator[str]:
    """`blob` names a blob, `base_revision` a revision, and `parent` one of several kinds of thing."""
    for method, rule in _rules(contract):
        if rule.field and not _is_named_for(rule.field, rule.resource):
            yield f"{method}: {rule.field} names {rule.resource}"


def a_field_that_says_what_it_refers_to_has_the_name_of_that(contract: Contract) -> Iterator[str]:
    """The same where the field's own option `reference` says it, and not the access rule."""
    for message in contract.messages:
        for field in message.fields:
            kind = _options(field).Extensions[access_pb2.reference]
            if kind and not _is_named_for(field.name, kind):
                yield f"{message.name}.{field.name} names {kind}"


def a_field_with_the_form_of_a_reference_is_named_for_a_noun(contract: Contract) -> Iterator[str]:
    """What is an id, or has the form of a reference to what is in a revision, refers to something."""
    kinds = {*NOUNS, "parent", *(rule.resource for _, rule in _rules(contract) if rule.resource)}
    for message in contract.requests:
        for field in message.fields:
            rules = _options(field).Extensions[validate_pb2.field].string
            refers = rules.uuid or any(rules.Extensions[form] for form in (alias_pb2.within, alias_pb2.alias_or_id))
            named = field.name == "request_id" or any(_is_named_for(field.name, kind) for kind in kinds)
            if refers and not named:
                yield f"{message.name}.{field.name}"


def a_prefix_says_of_what(contract: Contract) -> Iterator[str]:
    """`alias_prefix` and `key_prefix`, not `prefix`."""
    yield from _fields(contract.messages, r"prefix|begins_with|starts_with|.*_(begins|starts)_with")


def a_time_bounds_by_after_or_before(contract: Contract) -> Iterator[str]:
    """`created_after` and `created_before`; not since, until, from."""
    yield from _fields(contract.requests, r"(.*_)?(since|until|from|till)(_.*)?")


def a_bound_is_not_among_what_it_bounds(contract: Contract) -> Iterator[str]:
    """What is created after an instant is not created at it; so it is with sequences, which polls go on from."""
    for field, comment in _comments(contract):
        if re.fullmatch(r"(.*_)?(after|before)(_.*)?", field.name) and re.search(INCLUSIVE, comment):
            yield f"{field.containing_type.name}.{field.name}: {comment.strip()}"


def a_record_holds_ids(contract: Contract) -> Iterator[str]:
    """`blob_id`, not `blob`, where the id of another thing is meant."""
    as_sent = ("InvocationTarget",)  # It comes back as it was sent, and is a part of requests.
    for message in contract.records:
        if message.name in as_sent:
            continue
        for field in message.fields:
            if field.type == STRING and field.name in NOUNS:
                yield f"{message.name}.{field.name}"


def what_a_thing_belongs_to_is_its_parent(contract: Contract) -> Iterator[str]:
    """Not scope, owner, target, holder."""
    own = {"WorkflowConnection.target_id": "the platform's word for the end of a connection"}
    yield from (name for name in _fields(contract.messages, r"(scope|owner|target|holder)(_id)?") if name not in own)


def every_update_has_a_mask_and_an_etag(contract: Contract) -> Iterator[str]:
    """AIP-134 and AIP-154."""
    for method in contract.methods:
        if method.name.startswith("Update"):
            yield from (
                f"{method.name}: {name}" for name in ("update_mask", "etag") if name not in method.input_type.fields_by_name
            )


def every_put_can_be_kept_to_creating(contract: Contract) -> Iterator[str]:
    """`Put` creates or replaces; with `create_only` it does not replace."""
    for method in contract.methods:
        field = method.input_type.fields_by_name.get("create_only")
        if method.name.startswith("Put") and (field is None or field.type != BOOL):
            yield method.name


def nothing_is_set(contract: Contract) -> Iterator[str]:
    """`Update` changes fields and `Put` replaces a document; there is no third word."""
    yield from (
        method.name for method in contract.methods if re.match(r"(Set|Modify|Patch|Upsert|Add|Remove)[A-Z]", method.name)
    )


def a_numbering_among_several_is_named_in_full(contract: Contract) -> Iterator[str]:
    """Where a message has `execution_sequence`, there is no `sequence`."""
    for message in contract.messages:
        numberings = [field.name for field in message.fields if field.name.endswith("sequence")]
        full = [name for name in numberings if re.search(r"(session|execution)_sequence$", name)]
        yield from (f"{message.name}.{name}" for name in numberings if full and name not in full)


def a_watch_follows_unless_it_only_replays(contract: Contract) -> Iterator[str]:
    """`replay_only`, and where to begin."""
    for method in contract.methods:
        names = set(method.input_type.fields_by_name)
        if method.name.startswith("Watch"):
            begins = any(re.fullmatch(r"after_(\w+_)?sequence", name) for name in names)
            if "replay_only" not in names or "follow" in names or not begins:
                yield method.name


def retries_use_the_words_of_temporal(contract: Contract) -> Iterator[str]:
    """`maximum_attempts`, `initial_interval`, `backoff_coefficient`, `maximum_interval`, `…_reasons`."""
    words = r"attempts|max_attempts|first_interval|factor|multiplier|cap|max_interval|max_backoff"
    yield from _fields(contract.messages, words)


def maxima_are_written_out(contract: Contract) -> Iterator[str]:
    """`maximum_concurrent`, not `max_concurrent`."""
    yield from _fields(contract.messages, r"(max|min)_.*")


def an_alias_that_is_given_follows_the_one_grammar(contract: Contract) -> Iterator[str]:
    """The rule of alias.proto; session objects alone have their own."""
    for method in contract.methods:
        field = method.input_type.fields_by_name.get("alias")
        if field is None or not re.match(r"Create|Put|Update", method.name) or "SessionObject" in method.name:
            continue
        options = descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())
        if not options.Extensions[validate_pb2.field].string.Extensions[alias_pb2.alias]:
            yield method.name


def a_definition_is_a_reference(contract: Contract) -> Iterator[str]:
    """The body is `content`, as a message, or `document`, as text."""
    for message in contract.requests:
        for field in message.fields:
            if field.name == "definition" and field.type == MESSAGE:
                yield f"{message.name}.definition"


def every_list_is_paged(contract: Contract) -> Iterator[str]:
    """AIP-158. The lists of what is installed are short and whole."""
    whole = {"ListBlobTypes", "ListComponents"}
    for method in contract.methods:
        if method.name.startswith("List") and method.name not in whole:
            missing = {"page_size", "page_token"} - set(method.input_type.fields_by_name)
            missing |= {"next_page_token"} - set(method.output_type.fields_by_name)
            yield from (f"{method.name}: {name}" for name in sorted(missing))


def a_deletion_answers_no_more_than_the_drafts_etag(contract: Contract) -> Iterator[str]:
    """One shape for all: nothing, or, where a draft was edited, its new `revision_etag`."""
    for method in contract.methods:
        if re.match(r"Delete|Discard", method.name):
            names = set(method.output_type.fields_by_name)
            yield from (f"{method.name}: {name}" for name in sorted(names - {"revision_etag"}))


def a_value_has_its_json_text_beside_it(contract: Contract) -> Iterator[str]:
    """A `google.protobuf.Value` or `Struct` has doubles alone. Where a client may set either form, the two are a `oneof`."""
    for message in contract.messages:
        for field in message.fields:
            if field.message_type and field.message_type.full_name in ("google.protobuf.Value", "google.protobuf.Struct"):
                text = message.fields_by_name.get(f"{field.name}_json")
                one_way = text is not None and text.type == STRING and text.containing_oneof == field.containing_oneof
                asked = message in contract.requests
                if not one_way or (asked and field.containing_oneof is None):
                    yield f"{message.name}.{field.name}"


Rule = Callable[[Contract], Iterator[str]]

EXAMPLES: dict[Rule, str] = {
    organization_is_written_out: "message Blob { string org_id = 1; }",
    a_request_refers_by_the_noun: "message AskRequest { string session_id = 1; }",
    nothing_follows_the_noun_that_a_request_refers_by: "message AskRequest { string session_ref = 1; }",
    a_checked_field_has_the_name_of_its_kind: """
        message AskRequest { string scope = 1; }
        message AskResponse {}
        service Keys {
          rpc Ask(AskRequest) returns (AskResponse) { option (access) = {field: "scope" resource: "blob"}; }
        }""",
    a_field_that_says_what_it_refers_to_has_the_name_of_that: """
        message AskRequest { string resource = 1 [(reference) = "organization_or_blob"]; }""",
    a_field_with_the_form_of_a_reference_is_named_for_a_noun: """
        import "blobhub/v1/alias.proto";
        import "buf/validate/validate.proto";
        message AskRequest { string place = 1 [(buf.validate.field).string.(blobhub.v1.within) = true]; }""",
    a_prefix_says_of_what: "message ListThingRequest { string prefix = 1; }",
    a_time_bounds_by_after_or_before: "message ListThingRequest { int64 created_since = 1; }",
    a_bound_is_not_among_what_it_bounds: """
        message ListThingRequest {
          // Only things that were created at this time or later.
          int64 created_after = 1;
        }""",
    a_record_holds_ids: "message Session { string blob = 1; }",
    what_a_thing_belongs_to_is_its_parent: "message AskRequest { string owner = 1; }",
    every_update_has_a_mask_and_an_etag: "message UpdateThingRequest { string etag = 1; }",
    every_put_can_be_kept_to_creating: "message PutThingRequest { string alias = 1; }",
    nothing_is_set: "message SetThingRequest {}",
    a_numbering_among_several_is_named_in_full: "message Line { int64 sequence = 1; int64 execution_sequence = 2; }",
    a_watch_follows_unless_it_only_replays: "message WatchThingRequest { int64 after_sequence = 1; bool follow = 2; }",
    retries_use_the_words_of_temporal: "message Retry { int32 attempts = 1; }",
    maxima_are_written_out: "message Policy { int32 max_concurrent = 1; }",
    an_alias_that_is_given_follows_the_one_grammar: "message PutThingRequest { string alias = 1; }",
    a_definition_is_a_reference: "message AskRequest { Body definition = 1; } message Body {}",
    every_list_is_paged: "message ListThingRequest { int32 page_size = 1; }",
    a_deletion_answers_no_more_than_the_drafts_etag: """
        message DeleteThingRequest {}
        message DeleteThingResponse { string id = 1; }""",
    a_value_has_its_json_text_beside_it: """
        import "google/protobuf/struct.proto";
        message Thing { google.protobuf.Value value = 1; }""",
}
"""The rules, each with protos that break it. A request without a service gets one, with a method of its name."""
