# The image for those who have Docker; `make image` builds one without it.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# The commit, for `trimtab version`: --build-arg TRIMTAB_COMMIT="$(git rev-parse HEAD)"
ARG TRIMTAB_COMMIT=
RUN TRIMTAB_COMMIT="$TRIMTAB_COMMIT" cargo build --locked --profile dist --package trimtab

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="trimtab" \
      org.opencontainers.image.description="Management plane for Istio" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/dist/trimtab /usr/local/bin/trimtab
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/trimtab"]
