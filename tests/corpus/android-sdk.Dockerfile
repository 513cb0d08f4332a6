FROM openjdk:17-jdk-slim
ENV ANDROID_HOME=/opt/android-sdk \
    ANDROID_SDK_TOOLS=9477386
ENV PATH="$PATH:$ANDROID_HOME/cmdline-tools/latest/bin:$ANDROID_HOME/platform-tools"
RUN apt-get --quiet update --yes && apt-get --quiet install --yes wget unzip lib32stdc++6 lib32z1
RUN wget --quiet --output-document=/tmp/tools.zip https://dl.google.com/android/repository/commandlinetools-linux-${ANDROID_SDK_TOOLS}_latest.zip \
 && mkdir -p $ANDROID_HOME/cmdline-tools && unzip -q /tmp/tools.zip -d $ANDROID_HOME/cmdline-tools
RUN yes | sdkmanager --licenses > /dev/null || true
RUN sdkmanager "platforms;android-33" "build-tools;33.0.2"
