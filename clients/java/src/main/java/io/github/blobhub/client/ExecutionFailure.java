package io.github.blobhub.client;

/** Why an execution did not complete. */
public final class ExecutionFailure extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** The execution. */
  public final String executionId;

  /** An upper-case word, such as {@code SCRIPT_ERROR}. */
  public final String reason;

  /** Of the script or expression; 0 where it is not about one. */
  public final int line;

  ExecutionFailure(String executionId, String reason, String message, int line) {
    super(reason + ": " + message);
    this.executionId = executionId;
    this.reason = reason;
    this.line = line;
  }
}
