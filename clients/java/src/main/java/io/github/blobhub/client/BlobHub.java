package io.github.blobhub.client;

import com.google.protobuf.DescriptorProtos.DescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.DescriptorProtos.MethodDescriptorProto;
import com.google.protobuf.DescriptorProtos.MethodOptions.IdempotencyLevel;
import com.google.protobuf.DescriptorProtos.ServiceDescriptorProto;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import io.github.blobhub.v1.Event;
import io.github.blobhub.v1.ExecutionServiceGrpc;
import io.github.blobhub.v1.ExecutionSpec;
import io.github.blobhub.v1.RunExecutionRequest;
import io.github.blobhub.v1.RunExecutionResponse;
import io.github.blobhub.v1.WatchExecutionRequest;
import io.github.blobhub.v1.WatchExecutionResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptors;
import io.grpc.ConnectivityState;
import io.grpc.Context;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Queue;
import java.util.UUID;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * A small client for BlobHub. It is a channel that sends a key, bounds calls and makes again those that are safe to repeat; beside
 * that it walks pages, and runs and watches with automatic resume. Everything else is the generated stubs.
 *
 * <pre>{@code
 * try (var hub = BlobHub.connect(BlobHub.Config.of("127.0.0.1:7443", key))) {
 *   var blobs = BlobServiceGrpc.newBlockingStub(hub);
 *   for (Blob blob : BlobHub.page(blobs::listBlobs, request, ListBlobsResponse::getBlobsList)) { … }
 * }
 * }</pre>
 */
public final class BlobHub extends Channel implements AutoCloseable {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static final long MIN_DELAY_MILLIS = 100;
  private static final long MAX_DELAY_MILLIS = 10_000;
  private static final int ATTEMPTS = 5;

  private final Config config;
  private final ManagedChannel connection;
  private final Channel channel;

  /**
   * Where the server is, and how it is called.
   *
   * @param address host and port
   * @param key an API key or a token, sent with every call; null for none
   * @param tls whether the connection is encrypted, with a certificate that the system trusts
   * @param callTimeout of a call that answers once and has no deadline
   * @param connectTimeout how long a run or a watch tries to reach a server before it begins
   * @param reconnectTimeout how long one that was cut off tries to resume; null for ever
   */
  public record Config(
      String address, String key, boolean tls, Duration callTimeout, Duration connectTimeout, Duration reconnectTimeout) {
    /** A server in clear, with the timeouts that fit most programs. */
    public static Config of(String address, String key) {
      return new Config(address, key, false, Duration.ofSeconds(30), Duration.ofSeconds(15), null);
    }

    /** The same over TLS. */
    public Config withTls() {
      return new Config(address, key, true, callTimeout, connectTimeout, reconnectTimeout);
    }
  }

  private BlobHub(Config config) {
    this.config = config;
    ManagedChannelBuilder<?> builder = ManagedChannelBuilder.forTarget(config.address());
    connection =
        (config.tls() ? builder.useTransportSecurity() : builder.usePlaintext())
            .keepAliveTime(20, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .maxRetryAttempts(ATTEMPTS)
            .defaultServiceConfig(Map.of("methodConfig", List.of(Retries.policy(ATTEMPTS))))
            .build();
    channel = ClientInterceptors.intercept(connection, this::prepare);
  }

  /** A client. It does not wait for the server: the first call does. */
  public static BlobHub connect(Config config) {
    return new BlobHub(config);
  }

  @Override
  public <Q, A> ClientCall<Q, A> newCall(io.grpc.MethodDescriptor<Q, A> method, CallOptions options) {
    return channel.newCall(method, options);
  }

  @Override
  public String authority() {
    return channel.authority();
  }

  /** Ends the connection, and with it what is still called over it. */
  @Override
  public void close() {
    connection.shutdownNow();
  }

  /** Adds the key and a deadline to a call, and a `request_id` to a change that has none. */
  private <Q, A> ClientCall<Q, A> prepare(io.grpc.MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    boolean once = method.getType() == io.grpc.MethodDescriptor.MethodType.UNARY;
    if (once && options.getDeadline() == null) {
      options = options.withDeadlineAfter(config.callTimeout().toMillis(), TimeUnit.MILLISECONDS);
    }
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<A> listener, Metadata headers) {
        if (config.key() != null) {
          headers.put(AUTHORIZATION, "Bearer " + config.key());
        }
        super.start(listener, headers);
      }

      @Override
      @SuppressWarnings("unchecked")
      public void sendMessage(Q message) {
        super.sendMessage(once ? (Q) Retries.withRequestId((Message) message) : message);
      }
    };
  }

  /** Every item of a List method, page after page. */
  public static <Q extends Message, A extends Message, T> Iterable<T> page(
      Function<Q, A> list, Q request, Function<A, List<T>> items) {
    return () ->
        new Iterator<>() {
          private Iterator<T> ready = List.<T>of().iterator();
          private Q next = request;

          @Override
          public boolean hasNext() {
            while (!ready.hasNext() && next != null) {
              A answer = list.apply(next);
              Object token = answer.getField(answer.getDescriptorForType().findFieldByName("next_page_token"));
              ready = items.apply(answer).iterator();
              next = token.equals("") ? null : with(request, "page_token", token);
            }
            return ready.hasNext();
          }

          @Override
          public T next() {
            if (!hasNext()) {
              throw new NoSuchElementException();
            }
            return ready.next();
          }
        };
  }

  /**
   * What a Watch method streams. A stream that breaks is resumed after the last item.
   *
   * @param watch a method of a blocking stub, such as {@code sessions::watchSession}
   */
  public <Q extends Message, A, T extends Message> Watch<T> watch(
      Function<Q, Iterator<A>> watch, Q request, Function<A, List<T>> items) {
    FieldDescriptor after =
        request.getDescriptorForType().getFields().stream()
            .filter(field -> field.getName().startsWith("after_") && field.getName().endsWith("sequence"))
            .findFirst()
            .orElseThrow();
    String number = after.getName().substring("after_".length());
    long begin = (Long) request.getField(after);
    return new Watch<>(number, begin, seen -> each(watch.apply(with(request, after.getName(), seen)), items));
  }

  /** Starts an execution and gives its events until it has ended, also across interruptions. It starts one. */
  public Watch<Event> run(RunExecutionRequest request) {
    var executions = ExecutionServiceGrpc.newBlockingStub(this);
    var sent = request.getRequestId().isEmpty() ? with(request, "request_id", UUID.randomUUID().toString()) : request;
    String[] execution = {""};
    return new Watch<>(
        "execution_sequence",
        0,
        seen -> {
          if (seen > 0) {
            var asked = WatchExecutionRequest.newBuilder().setExecution(execution[0]).setAfterExecutionSequence(seen);
            return each(executions.watchExecution(asked.build()), WatchExecutionResponse::getEventsList);
          }
          return each(
              executions.runExecution(sent),
              (RunExecutionResponse message) -> {
                if (message.hasExecution()) {
                  execution[0] = message.getExecution().getId();
                }
                return message.getEventsList();
              });
        });
  }

  /**
   * Runs a definition on plain values, and answers what it gives as one; see {@link Values}.
   *
   * @throws ExecutionFailure where the execution does not complete
   */
  public Object result(String session, String definition, Map<String, ?> inputs) {
    var spec = ExecutionSpec.newBuilder().setDefinition(definition);
    inputs.forEach((alias, value) -> spec.addInputData(Values.input(alias, value)));
    try (var events = run(RunExecutionRequest.newBuilder().setSession(session).setSpec(spec).build())) {
      for (Event event : events) {
        switch (event.getPayloadCase()) {
          case FLOW_EXITED -> {
            return Values.plain(event.getFlowExited().getResult(), event.getFlowExited().getResultJson());
          }
          case FLOW_ERROR -> {
            var why = event.getFlowError().getFailure();
            throw new ExecutionFailure(event.getExecutionId(), why.getReason(), why.getMessage(), why.getLine());
          }
          case FLOW_STOPPED ->
              throw new ExecutionFailure(event.getExecutionId(), "STOPPED", "the execution was stopped", 0);
          default -> { }
        }
      }
    }
    throw new IllegalStateException("the stream of an execution ended before the execution");
  }

  private static <A, T> Iterator<List<T>> each(Iterator<A> messages, Function<A, List<T>> items) {
    return new Iterator<>() {
      @Override
      public boolean hasNext() {
        return messages.hasNext();
      }

      @Override
      public List<T> next() {
        return items.apply(messages.next());
      }
    };
  }

  /** Items of a stream that goes on after interruptions. To leave it before its end, close it. */
  public final class Watch<T extends Message> implements Iterable<T>, Iterator<T>, AutoCloseable {
    private final String number;
    private final Function<Long, Iterator<List<T>>> open;
    private final Context.CancellableContext context = Context.current().withCancellation();
    private final Queue<T> ready = new ArrayDeque<>();
    private Iterator<List<T>> stream;
    private long after;
    private long delay = MIN_DELAY_MILLIS;
    private long heard = System.nanoTime();
    private boolean reached;

    private Watch(String number, long after, Function<Long, Iterator<List<T>>> open) {
      this.number = number;
      this.after = after;
      this.open = open;
    }

    @Override
    public Iterator<T> iterator() {
      return this;
    }

    @Override
    public T next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      return ready.remove();
    }

    @Override
    public boolean hasNext() {
      if (!reached) {
        requireServer();
        reached = true;
      }
      while (ready.isEmpty()) {
        try {
          if (stream == null) {
            stream = context.call(() -> open.apply(after));
          }
          if (!stream.hasNext()) {
            close();
            return false;
          }
          stream.next().forEach(this::take);
        } catch (StatusRuntimeException broken) {
          stream = null;
          pause(broken);
        } catch (RuntimeException other) {
          throw other;
        } catch (Exception never) {
          throw new IllegalStateException(never);
        }
      }
      return true;
    }

    private void take(T item) {
      long found = (Long) item.getField(item.getDescriptorForType().findFieldByName(number));
      if (found <= after || !number.equals("sequence") && found != after + 1) { // Only a `sequence` may have gaps.
        throw new IllegalStateException(number + " " + found + " came after " + after + ", which is a bug of the server");
      }
      after = found;
      delay = MIN_DELAY_MILLIS;
      heard = System.nanoTime();
      ready.add(item);
    }

    private void pause(StatusRuntimeException broken) {
      Failure failure = Failure.of(broken);
      Duration limit = config.reconnectTimeout();
      boolean late = limit != null && System.nanoTime() - heard > limit.toNanos();
      if (!failure.isTemporary() || late) {
        close();
        throw broken;
      }
      long millis = failure.retryAfter().toMillis();
      try {
        Thread.sleep(millis > 0 ? millis : (long) (delay * ThreadLocalRandom.current().nextDouble(0.5, 1)));
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        close();
        throw broken;
      }
      delay = Math.min(delay * 2, MAX_DELAY_MILLIS);
    }

    /** Ends the call. */
    @Override
    public void close() {
      context.cancel(null);
    }
  }

  /** Waits until a server answers. */
  private void requireServer() {
    long deadline = System.nanoTime() + config.connectTimeout().toNanos();
    while (connection.getState(true) != ConnectivityState.READY) {
      if (System.nanoTime() > deadline) {
        String hint = config.tls() ? "does it speak TLS, with a certificate that is trusted?" : "does it ask for TLS?";
        throw Status.UNAVAILABLE
            .withDescription(
                "no server answers at %s within %d s; is one running there, and %s"
                    .formatted(config.address(), config.connectTimeout().toSeconds(), hint))
            .asRuntimeException();
      }
      try {
        Thread.sleep(10);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw Status.CANCELLED.withCause(interrupted).asRuntimeException();
      }
    }
  }

  @SuppressWarnings("unchecked")
  static <Q extends Message> Q with(Q message, String field, Object value) {
    return (Q) message.toBuilder().setField(message.getDescriptorForType().findFieldByName(field), value).build();
  }

  /** What may be made again. */
  private static final class Retries {
    /** A policy for the calls that answer once and are safe to repeat: what changes nothing, or has a `request_id`. */
    static Map<String, ?> policy(int attempts) {
      Map<String, DescriptorProto> messages = new HashMap<>();
      contract().getFileList().forEach(file ->
          file.getMessageTypeList().forEach(type -> messages.put("." + file.getPackage() + "." + type.getName(), type)));
      List<Map<String, ?>> names = new ArrayList<>();
      for (FileDescriptorProto file : contract().getFileList()) {
        for (ServiceDescriptorProto service : file.getServiceList()) {
          for (MethodDescriptorProto method : service.getMethodList()) {
            boolean once = !method.getServerStreaming() && !method.getClientStreaming();
            boolean changesNothing = method.getOptions().getIdempotencyLevel() == IdempotencyLevel.NO_SIDE_EFFECTS;
            boolean identified = has(messages.get(method.getInputType()), "request_id");
            boolean shownOnce = has(messages.get(method.getOutputType()), "key"); // A repeated answer has no new key.
            if (once && (changesNothing || identified && !shownOnce)) {
              names.add(Map.of("service", file.getPackage() + "." + service.getName(), "method", method.getName()));
            }
          }
        }
      }
      return Map.of(
          "name", names,
          "retryPolicy",
              Map.of(
                  "maxAttempts", (double) attempts,
                  "initialBackoff", "0.1s",
                  "maxBackoff", "10s",
                  "backoffMultiplier", 2.0,
                  "retryableStatusCodes", List.of("UNAVAILABLE")));
    }

    private static boolean has(DescriptorProto message, String field) {
      return message.getFieldList().stream().anyMatch(each -> each.getName().equals(field));
    }

    /** The descriptors that the stubs were generated from. */
    private static FileDescriptorSet contract() {
      try (InputStream image = BlobHub.class.getResourceAsStream("java.binpb")) {
        return FileDescriptorSet.parseFrom(image);
      } catch (IOException never) {
        throw new UncheckedIOException(never);
      }
    }

    static Message withRequestId(Message message) {
      FieldDescriptor field = message.getDescriptorForType().findFieldByName("request_id");
      boolean missing = field != null && message.getField(field).equals("");
      return missing ? with(message, "request_id", UUID.randomUUID().toString()) : message;
    }
  }
}
