package io.github.blobhub.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.github.blobhub.v1.ErrorReason;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;

/**
 * Why a call failed.
 *
 * @param reason such as {@code NOT_FOUND}; empty where the server did not say
 * @param domain whose reason it is: {@code blobhub}, or the type of a blob
 * @param retryAfter how long the server says to wait; zero where it does not
 */
public record Failure(
    Status.Code code,
    String message,
    String reason,
    String domain,
    Map<String, String> metadata,
    List<BadRequest.FieldViolation> violations,
    Duration retryAfter) {

  /** What the exception of a call says. */
  public static Failure of(StatusRuntimeException exception) {
    ErrorInfo info = ErrorInfo.getDefaultInstance();
    BadRequest wrong = BadRequest.getDefaultInstance();
    RetryInfo retry = RetryInfo.getDefaultInstance();
    com.google.rpc.Status status = StatusProto.fromThrowable(exception);
    try {
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(BadRequest.class)) {
          wrong = detail.unpack(BadRequest.class);
        } else if (detail.is(RetryInfo.class)) {
          retry = detail.unpack(RetryInfo.class);
        }
      }
    } catch (InvalidProtocolBufferException unreadable) {
      exception.addSuppressed(unreadable);
    }
    return new Failure(
        exception.getStatus().getCode(),
        status.getMessage(),
        info.getReason(),
        info.getDomain(),
        info.getMetadataMap(),
        wrong.getFieldViolationsList(),
        Duration.ofSeconds(retry.getRetryDelay().getSeconds(), retry.getRetryDelay().getNanos()));
  }

  /** The reason as a value of the contract; unspecified where it is a type's own, or a newer server's. */
  public ErrorReason errorReason() {
    try {
      return domain.equals("blobhub")
          ? ErrorReason.valueOf("ERROR_REASON_" + reason)
          : ErrorReason.ERROR_REASON_UNSPECIFIED;
    } catch (IllegalArgumentException unknown) {
      return ErrorReason.UNRECOGNIZED;
    }
  }

  /** Whether the same may succeed a little later. */
  public boolean isTemporary() {
    return code == Status.Code.UNAVAILABLE
        || code == Status.Code.DEADLINE_EXCEEDED
        || code == Status.Code.RESOURCE_EXHAUSTED && !retryAfter.isZero();
  }

  /** The reason, the message, and those violations that the message does not mention. */
  @Override
  public String toString() {
    var text = new StringBuilder(reason.isEmpty() ? code.name() : reason).append(": ").append(message);
    for (BadRequest.FieldViolation violation : violations) {
      if (!message.contains(violation.getDescription())) {
        text.append("; ").append(violation.getField()).append(": ").append(violation.getDescription());
      }
    }
    return text.toString();
  }
}
